"""The GitHub Action's own steps and the GitLab job's script, run as CI runs them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import milan_onnx
from tests.conftest import ROOT
from tests.toy import toy_bundle, toy_photos, toy_subject

GATE = 3
CLONED = ("action.yml", "ci", "milan_onnx", "pyproject.toml", "README.md", "LICENSE", "NOTICE")
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
POLICY = """\
version = 1

[groups.unwanted]
words = ["{word}"]

[[rule]]
name = "nothing unwanted"
groups = ["unwanted"]
look = ["label"]
max_units = 0
"""

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a checkout of the action holds, in a folder whose name has a space."""
    folder = tmp_path_factory.mktemp("actions") / "a clone"
    folder.mkdir()
    for name in CLONED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder / name)
    return folder


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Python without milan-onnx, which has the libraries of this one."""
    folder = tmp_path_factory.mktemp("python") / "venv"
    line = [sys.executable, "-m", "venv", "--without-pip", folder]  # pip is among the libraries
    subprocess.run(line, check=True, timeout=120)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A repository that uses the action: model, photos, bundle."""
    folder = tmp_path / "my work"
    folder.mkdir()
    toy_subject(folder / "my model.onnx")
    toy_bundle(folder / "b")
    toy_photos(folder / "photos")
    return folder


@dataclass
class Job:
    """Runs the steps of action.yml as GitHub does, but for those that use other actions."""

    clone: Path
    work: Path
    inputs: Mapping[str, str]
    python: Path
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)

    def run(self) -> None:
        action = yaml.safe_load((self.clone / "action.yml").read_text())
        self.inputs = {
            name: self.inputs.get(name, about.get("default", ""))
            for name, about in action["inputs"].items()
        }
        for step in action["runs"]["steps"]:
            if "run" in step and self._is_due(step):
                self._step(step)

    @property
    def code(self) -> int:
        return next((code for code in self.codes.values() if code), 0)

    def summary(self) -> str:
        return (self.work.parent / "summary").read_text()

    def _is_due(self, step: Mapping[str, Any]) -> bool:
        """A step runs while none has failed; those that say so also after that."""
        if "if" not in step:
            return self.code == 0
        assert step["if"].startswith("${{ !cancelled() && steps.label.outcome == 'success'")
        return self.codes.get("Label") == 0

    def _step(self, step: Mapping[str, Any]) -> None:
        name = step["name"]
        runner = self.work.parent / f"output of {name}"
        runner.touch()
        given = {key: self._evaluated(str(value)) for key, value in step["env"].items()}
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MILAN"))}
        environment = kept | {
            "PATH": f"{self.python}{os.pathsep}{os.environ['PATH']}",
            "GITHUB_OUTPUT": str(runner),
            "GITHUB_STEP_SUMMARY": str(self.work.parent / "summary"),
            # No network: the libraries are there, and so is what builds the package.
            "PIP_NO_INDEX": "1",
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_FIND_LINKS": "",
        }
        assert step["shell"] == "bash"
        assert "${{" not in step["run"], "a value that is written into a script is run by it"
        line = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        done = subprocess.run(
            line,
            cwd=self.work,
            env=environment | given,
            capture_output=True,
            text=True,
            timeout=300,
        )
        self.codes[name] = done.returncode
        self.said[name] = done.stdout + done.stderr
        lines = runner.read_text().splitlines()
        self.outputs[step.get("id", name)] = dict(text.split("=", 1) for text in lines)

    def _evaluated(self, text: str) -> str:
        def value(found: re.Match[str]) -> str:
            place, _, rest = found[1].partition(".")
            if place == "inputs":
                return self.inputs[rest]
            assert found[1] == "github.action_path", found[1]
            return str(self.clone)

        return EXPRESSION.sub(value, text)


def inputs(**more: str) -> dict[str, str]:
    args = "--bundle=b\n--exemplars=5\n--no-report"
    given = {"model": "my model.onnx", "layers": "relu1\nrelu6", "images": "photos", "args": args}
    return given | {name.replace("_", "-"): value for name, value in more.items()}


def test_steps_install_label_from_the_cache_gate_and_report(
    clone: Path, work: Path, python: Path
) -> None:
    (work / "policy.toml").write_text(POLICY.format(word="submarine"))
    passing = Job(clone, work, inputs(policy="policy.toml"), python)
    passing.run()
    assert passing.code == 0, passing.said
    assert list(passing.codes) == ["Install", "Key", "Label", "Gate", "Summary"]
    assert milan_onnx.__version__ in passing.said["Install"]
    assert re.fullmatch(r"[0-9a-f]{64}", passing.outputs["key"]["key"])
    assert passing.outputs["key"]["cache"] == ".milan-cache"
    assert (work / ".milan-cache" / passing.outputs["key"]["key"]).is_dir()
    run = milan_onnx.load_run(work / passing.outputs["label"]["run"])
    assert [layer.layer for layer in run.layers] == ["relu1", "relu6"]
    assert (work / "milan-run" / "labels.csv").is_file()
    assert "## Labels of my model.onnx" in passing.summary()
    reports = work / passing.outputs["label"]["reports"]
    assert {p.name for p in reports.iterdir()} == {
        *("audit.md", "audit.xml", "audit.sarif", "summary.md")
    }

    said = next(label.description for label in run.labels if label.description)
    (work / "policy.toml").write_text(POLICY.format(word=said))
    (work.parent / "summary").unlink()
    failing = Job(clone, work, inputs(policy="policy.toml"), python)
    failing.run()
    assert failing.code == GATE, failing.said
    assert failing.codes["Gate"] == GATE
    assert failing.codes["Summary"] == 0
    assert "cache: made before" in failing.said["Label"]
    assert "broken" in failing.summary()


def test_the_gate_compares_with_a_baseline_and_tells_the_worst(work: Path) -> None:
    for number in range(20):  # in colours, since to noise all units answer alike
        colour = tuple(np.random.default_rng(number).integers(0, 256, 3).tolist())
        Image.new("RGB", (40, 40), colour).save(work / "photos" / f"{number:02}.png")
    given = {"MILAN_IMAGES": "photos", "MILAN_LAYERS": "relu6", "MILAN_CACHE": "c"}
    given["MILAN_ARGS"] = "--bundle=b\n--exemplars=3\n--no-report"
    toy_subject(work / "other.onnx", seed=5)
    for model, out in (("my model.onnx", "before"), ("other.onnx", "after")):
        assert shell("label", work, MILAN_MODEL=model, MILAN_OUT=out, **given).returncode == 0
    gate = given | {"MILAN_BASELINE": "before", "MILAN_MAX_CHANGED": "2%"}
    same = shell("gate", work, MILAN_OUT="before", **gate)
    assert same.returncode == 0, same.stderr
    changed = shell("gate", work, MILAN_OUT="after", **gate)
    assert changed.returncode == GATE, changed.stderr
    assert (work / "milan-reports" / "diff.html").is_file()
    assert shell("summary", work, MILAN_OUT="after").returncode == 0
    assert (work / "milan-reports" / "diff.md").read_text() in (
        work / "milan-reports" / "summary.md"
    ).read_text()
    (work / "policy.toml").write_text("version = 7")
    bad = shell("gate", work, MILAN_OUT="after", MILAN_POLICY="policy.toml", **gate)
    assert bad.returncode == 5, bad.stderr


HOSTILE = "$(touch owned) `touch owned`; touch owned #\"'"


def shell(step: str, cwd: Path, **given: str) -> subprocess.CompletedProcess[str]:
    """A step of the script with this Python."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MILAN_O")}
    environment |= {"PYTHONPATH": str(ROOT), "MILAN_PYTHON": sys.executable} | given
    line = ["bash", str(ROOT / "ci" / "label.sh"), step]
    return subprocess.run(
        line, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )


def test_values_are_never_read_as_shell(work: Path) -> None:
    model = work / f"{HOSTILE}.onnx"
    shutil.copy(work / "my model.onnx", model)
    given = {"MILAN_MODEL": model.name, "MILAN_LAYERS": "relu1", "MILAN_OUT": f"run {HOSTILE}"}
    args = "--bundle=b\n--synthetic=20\n--no-report\n"
    done = shell("label", work, MILAN_ARGS=args, **given)
    assert done.returncode == 0, done.stderr
    run = milan_onnx.load_run(work / f"run {HOSTILE}")
    assert run.manifest["model"]["name"] == model.name
    assert shell("summary", work, MILAN_REPORTS=f"r {HOSTILE}", **given).returncode == 0
    refused = shell("label", work, MILAN_ARGS=f"{args}{HOSTILE}", **given)
    assert refused.returncode == 2
    assert not list(work.parent.rglob("owned"))


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ({}, 2, "no model is named"),
        ({"MILAN_MODEL": "--help"}, 5, "there is no file --help"),
        ({"MILAN_MODEL": "none.onnx"}, 5, "there is no file none.onnx"),
        ({"MILAN_MODEL": "my model.onnx", "MILAN_LAYERS": "--help"}, 2, "--help"),
        ({"MILAN_MODEL": "my model.onnx", "MILAN_LIMIT": "many"}, 2, "many"),
    ],
)
def test_a_bad_value_ends_the_step_as_the_command(
    work: Path, given: dict[str, str], code: int, words: str
) -> None:
    for step in ("key", "label"):
        done = shell(step, work, **given)
        assert done.returncode == code, done.stdout + done.stderr
        assert words in done.stderr


def test_a_step_that_is_none_is_refused(work: Path) -> None:
    assert shell("", work).returncode == 2
    assert "give install, key" in shell("labels", work).stderr


def test_a_folder_of_the_job_is_not_taken_for_the_package(work: Path) -> None:
    (work / "milan_onnx").mkdir()
    (work / "milan_onnx" / "__init__.py").write_text("raise SystemExit('taken')")
    assert shell("key", work, MILAN_MODEL="my model.onnx", MILAN_ARGS="--bundle=b").returncode == 0


def test_lines_of_several_ends_are_read(work: Path) -> None:
    given = {"MILAN_MODEL": "my model.onnx", "MILAN_ARGS": "--bundle=b\r\n--synthetic=20\r\n"}
    one = shell("key", work, MILAN_LAYERS="relu1\nrelu6", **given)
    two = shell("key", work, MILAN_LAYERS="relu1\r\n\r\nrelu6\r\n", **given)
    assert (one.returncode, one.stdout) == (0, two.stdout), one.stderr + two.stderr
    assert one.stdout.strip()


def test_a_path_of_several_lines_gives_a_job_no_other_values(work: Path, tmp_path: Path) -> None:
    given = {"MILAN_MODEL": "my model.onnx", "MILAN_ARGS": "--bundle=b\n--synthetic=20"}
    output = tmp_path / "output"
    done = shell("key", work, MILAN_CACHE="x\nkey=y", GITHUB_OUTPUT=str(output), **given)
    assert done.returncode == 2
    assert "cache has several lines" in done.stderr


def test_all_is_what_a_gitlab_job_runs(work: Path) -> None:
    (work / "policy.toml").write_text(POLICY.format(word="submarine"))
    script = yaml.safe_load(gitlab_job())
    (name,) = (key for key, value in script.items() if "script" in value)
    assert script[name]["script"][-1].endswith("ci/label.sh all")
    assert script[name]["artifacts"]["when"] == "always"
    variables = set(script[name]["variables"])
    told = set(re.findall(r"^#   (MILAN_[A-Z_]+)", (ROOT / "ci/label.sh").read_text(), re.M))
    assert {v for v in variables if v.startswith("MILAN_")} <= told


def gitlab_job() -> str:
    """The job of docs/ci.md."""
    text = (ROOT / "docs" / "ci.md").read_text()
    return text.split("```yaml\n# .gitlab-ci.yml\n")[1].split("```")[0]


def test_actions_of_others_are_pinned_and_inputs_told() -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    for step in action["runs"]["steps"]:
        if "uses" in step:
            assert re.fullmatch(r"(actions|github)/[\w/-]+@v\d+\.\d+\.\d+", step["uses"])
    used = set(re.findall(r"inputs\.([\w-]+)", (ROOT / "action.yml").read_text()))
    assert used == set(action["inputs"])
    documented = (ROOT / "docs" / "ci.md").read_text()
    for name in action["inputs"]:
        assert f"`{name}`" in documented


def test_the_script_is_clean() -> None:
    checker = shutil.which("shellcheck") or shutil.which(
        "shellcheck", path=str(Path(sys.executable).parent)
    )
    if checker is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([checker, str(ROOT / "ci" / "label.sh")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
