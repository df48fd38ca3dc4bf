"""The tree's rules: imports run one way, torch stays in export/, importing costs little."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import milan_onnx

PACKAGE = Path(milan_onnx.__file__).parent

# A place may import those in rows above its own, and itself.
ROWS = [
    {
        *("errors", "cache", "choice", "files", "geometry"),
        *("machine", "making", "markdown", "progress", "wording"),
    },
    {"bundle", "regions", "exemplar_folder"},
    {"subject", "probe"},
    {"planted"},
    {"runtime", "exemplars", "labels"},
    {"run", "doctor", "generator", "annotations"},
    {"metadata", "reporting"},
    {"describing"},
    {"applications", "selftest", "export"},
    {"serve"},
    {"cli"},
    {"__main__"},
]
EXPORT_MAY = {
    *("export", "annotations", "applications", "bundle", "errors", "files", "geometry"),
    *("machine", "progress", "regions", "runtime"),
}


def place(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules() -> list[Path]:
    return [p for p in sorted(PACKAGE.rglob("*.py")) if p != PACKAGE / "__init__.py"]


def imports(path: Path) -> set[str]:
    """Places of the package that a file imports, at any depth of the code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "milan_onnx":
            names = [alias.name for alias in node.names if (PACKAGE / f"{alias.name}.py").exists()]
            found.update(names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("milan_onnx."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names if a.name.startswith("milan_onnx.")]
            found.update(name.split(".")[1] for name in names)
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    here = place(path)
    if here == "export":
        assert imports(path) <= EXPORT_MAY
        return
    row = next(i for i, row in enumerate(ROWS) if here in row)
    allowed = {here}.union(*ROWS[: row + 1]) if row in (0, 4) else {here}.union(*ROWS[:row])
    assert imports(path) <= allowed


@pytest.mark.parametrize(
    ("wing", "packages"),
    [
        ({"export"}, ("torch", "torchvision", "onnxscript")),
        ({"export", "serve"}, ("fastapi", "starlette", "pydantic", "uvicorn", "prometheus_client")),
    ],
    ids=["torch", "fastapi"],
)
def test_everything_outside_a_wing_imports_with_its_packages_blocked(
    wing: set[str], packages: tuple[str, ...]
) -> None:
    names = [
        ".".join(("milan_onnx", *path.relative_to(PACKAGE).with_suffix("").parts))
        for path in modules()
        if place(path) not in wing
    ]
    code = f"""
import importlib, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {packages!r}:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
for name in {names!r}:
    importlib.import_module(name.removesuffix(".__init__"))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing_else() -> None:
    loaded = loaded_by("import milan_onnx")
    assert not {m for m in loaded if m.startswith("milan_onnx.")}
    assert "numpy" not in loaded


def test_help_loads_nothing_heavy() -> None:
    loaded = loaded_by(
        "import sys; sys.argv = ['milan-onnx', '--help']\n"
        "from milan_onnx.cli import main\n"
        "try: main()\nexcept SystemExit: pass"
    )
    heavy = {"numpy", "onnx", "onnxruntime", "PIL", "jinja2", "tokenizers", "torch", "rich"}
    assert not heavy & loaded


def imported(*command: str) -> int:
    """Modules that Python's own account says a command imported, above a bare interpreter's."""

    def lines(*words: str) -> int:
        line = [sys.executable, "-X", "importtime", *words]
        done = subprocess.run(line, check=True, capture_output=True, text=True, timeout=60)
        return sum(text.startswith("import time:") for text in done.stderr.splitlines())

    return lines(*command) - lines("-c", "pass")


def test_start_up_imports_few_modules() -> None:
    """Counted, not timed: 25 and 107 when this was written (benchmarks/startup.py has times)."""
    assert imported("-c", "import milan_onnx") <= 40
    assert imported("-m", "milan_onnx", "--help") <= 130


def test_public_names_are_sorted_and_there() -> None:
    assert sorted(milan_onnx.__all__) == milan_onnx.__all__
    for name in milan_onnx.__all__:
        assert getattr(milan_onnx, name) is not None
    with pytest.raises(AttributeError):
        milan_onnx.nothing  # noqa: B018


def test_no_import_installs_handlers_or_warnings() -> None:
    code = """
import logging, signal, warnings
before = (list(logging.root.handlers), signal.getsignal(signal.SIGTERM), list(warnings.filters))
import milan_onnx.cli.app, milan_onnx.describing
after = (list(logging.root.handlers), signal.getsignal(signal.SIGTERM))
assert before[:2] == after, (before, after)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_describe_works_where_the_export_wing_is_not_there(
    subject_path: Path, bundle_path: Path, tmp_path: Path
) -> None:
    """Without the folder, and without torch: what a lean installation has."""
    left_out = shutil.ignore_patterns("export", "__pycache__", "models")
    shutil.copytree(PACKAGE, tmp_path / "lean" / "milan_onnx", ignore=left_out)
    line = ["describe", subject_path, "--bundle", bundle_path, "--synthetic", "60"]
    line += ["--no-report", "--out", tmp_path / "run"]
    code = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "tokenizers"):
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
sys.path.insert(0, {str(tmp_path / "lean")!r})
sys.argv = ["milan-onnx", *{[str(part) for part in line]!r}]
from milan_onnx.cli import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "labels.jsonl").stat().st_size > 100
