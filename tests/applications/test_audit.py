"""``milan-onnx audit`` end to end on a toy network: verdicts, files, exit codes, comparison."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from lxml import etree
from PIL import Image

from milan_onnx.applications.audit import audit_run
from milan_onnx.errors import RunError
from milan_onnx.labels import read_jsonl
from milan_onnx.run import load_run
from tests.conftest import Command
from tests.toy import toy_subject

SCHEMAS = Path(__file__).parent.parent / "data"
USAGE, GATE, ENVIRONMENT, BAD_DATA = 2, 3, 4, 5
UNITS = 12
SAID = {
    0: "human faces",
    1: "clock faces",
    2: "skin and dogs",
    3: "dogs",
    4: "text <b>|`*[x](y)",
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(160):
        noise = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        photo = Image.fromarray(noise).resize((40, 40), Image.Resampling.BILINEAR)
        photo.save(folder / f"{number:03}.png")
    return folder


@pytest.fixture(scope="module")
def described(
    milan: Command, bundle_path: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run with validity, whose labels are the toy captioner's."""
    folder = tmp_path_factory.mktemp("described")
    model = toy_subject(folder / "model.onnx")
    line = ("--layer", "relu6", "--images", photos, "--exemplars", 5, "--validity")
    rest = ("--bundle", bundle_path, "--out", folder / "run", "--no-report", "--quiet")
    done = milan("describe", model, *line, *rest)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def run_path(described: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with descriptions that are known."""
    return relabelled(described, tmp_path_factory.mktemp("known") / "run", SAID)


def relabelled(run: Path, out: Path, said: Mapping[int, str]) -> Path:
    """A copy of a run in which units are described otherwise, all others as dogs."""
    shutil.copytree(run, out)
    lines = (out / "labels.jsonl").read_text().splitlines()
    values = [json.loads(line) for line in lines]
    for value in values:
        text = said.get(value["unit"], "dogs")
        value["description"] = text
        value["candidates"] = [{**value["candidates"][0], "description": text}]
        value["flags"] = []
        value["validity"] = {
            "correlation": 0.5 if value["unit"] else 0.05,
            "auprc": 0.5,
            "shuffled_correlation": 0.0,
            "shuffled_auprc": 0.3,
            "images": 20,
        }
    text = "\n".join(json.dumps(v, sort_keys=True, separators=(",", ":")) for v in values)
    (out / "labels.jsonl").write_text(text + "\n")
    return out


def write_policy(folder: Path, *rules: str) -> Path:
    path = folder / "policy.toml"
    path.write_text("version = 1\n" + "\n".join(f"[[rule]]\n{rule}" for rule in rules))
    return path


FACES = 'name = "faces"\ngroups = ["faces", "skin"]\nlook = ["label"]\n'


def audited(milan: Command, run: Path, policy: Path, folder: Path, *more: object) -> dict[str, Any]:
    """What --json says; the audit must end with 0 or 3."""
    out = folder / "audit.json"
    done = milan("audit", run, "--policy", policy, "--json", out, *more)
    assert done.returncode in (0, GATE), done.stderr
    value: dict[str, Any] = json.loads(out.read_text())
    assert bool(value["broken"]) == (done.returncode == GATE)
    return value


def units(rule: Mapping[str, Any]) -> list[int]:
    return [hit["unit"] for hit in rule["hits"]]


# --- verdicts ------------------------------------------------------------------------------------


def test_a_broken_limit_ends_with_three_and_names_rule_and_figures(
    milan: Command, run_path: Path, tmp_path: Path
) -> None:
    policy = write_policy(tmp_path, FACES + 'max_share = "10%"')
    done = milan("audit", run_path, "--policy", policy)
    assert done.returncode == GATE
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith("error: the policy is broken: 1 of 1 rules broken: faces; ")
    )
    header, row = (line.split("\t") for line in done.stdout.splitlines())
    cells = dict(zip(header, row, strict=True))
    assert cells["state"] == "broken"
    assert cells["found"] == f"2 of {UNITS} units (16.7 %)"
    assert cells["allowed"] == "at most 10 % of the units"
    assert cells["concepts"] == "faces: human face 1, skin: skin 1"


def test_a_kept_policy_ends_with_zero(milan: Command, run_path: Path, tmp_path: Path) -> None:
    policy = write_policy(tmp_path, FACES + "max_units = 2")
    done = milan("audit", run_path, "--policy", policy)
    assert done.returncode == 0, done.stderr
    assert "the policy is kept" in done.stderr


def test_units_are_listed_with_why(milan: Command, run_path: Path, tmp_path: Path) -> None:
    policy = write_policy(tmp_path, FACES + "max_units = 2")
    done = milan("audit", run_path, "--policy", policy, "--units", "--quiet")
    rows = [line.split("\t") for line in done.stdout.splitlines()[1:]]
    assert [(row[2], row[3]) for row in rows] == [("0", "human faces"), ("2", "skin and dogs")]
    assert rows[1][5] == 'label "skin and dogs" (skin: skin)'


@pytest.mark.parametrize(
    ("severity", "fail_on", "code"),
    [
        ("error", "error", 3),
        ("warning", "error", 0),
        ("warning", "warning", 3),
        ("note", "note", 3),
    ],
)
def test_what_fails_can_be_set(
    milan: Command, run_path: Path, tmp_path: Path, severity: str, fail_on: str, code: int
) -> None:
    policy = write_policy(tmp_path, FACES + f'max_units = 0\nseverity = "{severity}"')
    done = milan("audit", run_path, "--policy", policy, "--fail-on", fail_on)
    assert done.returncode == code, done.stderr
    assert code or "warning: broken, but no failure: faces" in done.stderr


def test_labels_of_little_validity_can_be_left_out(
    milan: Command, run_path: Path, tmp_path: Path
) -> None:
    policy = write_policy(tmp_path, FACES + "max_units = 9\nmin_validity = 0.1")
    assert units(audited(milan, run_path, policy, tmp_path)["rules"][0]) == [2]


def test_rules_on_labels(milan: Command, run_path: Path, tmp_path: Path) -> None:
    rules = ['name = "a"\nmax_abstained = 0', 'name = "b"\nmin_correlation = 0.47']
    rules += ['name = "c"\nmax_dead = 0\nmin_correlation = 0.46']
    found = audited(milan, run_path, write_policy(tmp_path, *rules), tmp_path)
    mean = (0.05 + (UNITS - 1) * 0.5) / UNITS
    assert [rule["broken"] for rule in found["rules"]] == [False, True, False]
    assert found["rules"][1]["limits"][0]["found"] == pytest.approx(mean, abs=1e-6)


def test_importances_gate_single_units(milan: Command, run_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "importance.csv"
    rows = [f"node_relu6,{unit},{0.5 if unit == 2 else 0.001}" for unit in range(UNITS)]
    path.write_text("layer,unit,importance\n" + "\n".join(rows) + "\n")
    policy = write_policy(tmp_path, FACES + "max_importance = 0.01")
    found = audited(milan, run_path, policy, tmp_path, "--importance", path)["rules"][0]
    assert found["limits"][0] == {
        "name": "max_importance", "allowed": 0.01, "found": 0.5, "broken": True,
    }  # fmt: skip
    table = [{"layer": "relu6", "unit": unit, "importance": 0} for unit in range(UNITS)]
    path.write_text(json.dumps(table))
    found = audited(milan, run_path, policy, tmp_path, "--importance", path)["rules"][0]
    assert not found["broken"]


def test_layers_of_a_rule_are_chosen_by_name(
    milan: Command, run_path: Path, tmp_path: Path
) -> None:
    policy = write_policy(tmp_path, FACES + 'max_units = 9\nlayers = ["node_relu6"]')
    assert audited(milan, run_path, policy, tmp_path)["rules"][0]["units"] == UNITS
    policy = write_policy(tmp_path, FACES + 'max_units = 9\nlayers = ["conv9"]')
    done = milan("audit", run_path, "--policy", policy)
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert "no layer conv9" in done.stderr


def test_phrases_are_scored_and_the_unknown_are_named(
    milan: Command, run_path: Path, tmp_path: Path
) -> None:
    policy = write_policy(
        tmp_path,
        'name = "r"\ngroups = ["faces"]\nlook = ["phrases"]\nmax_units = 12\nfalse_alarms = "99%"',
    )
    done = milan("audit", run_path, "--policy", policy, "--units")
    assert done.returncode == 0, done.stderr
    assert "faces: the captioner can say 1 of " in done.stderr
    for line in done.stdout.splitlines()[1:]:
        assert 'phrase "face" (faces: face, chance ' in line


def test_audits_are_equal_byte_by_byte(milan: Command, run_path: Path, tmp_path: Path) -> None:
    written = []
    for threads in (1, 2):
        folder = tmp_path / str(threads)
        folder.mkdir()
        files = ("--junit", folder / "j.xml", "--sarif", folder / "s.json", "--threads", threads)
        more = ("--json", folder / "a.json", "--markdown", folder / "m.md", "--quiet")
        milan("audit", run_path, *files, *more)
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert len(written[0]) == 4
    assert written[0] == written[1]


# --- files ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(milan: Command, run_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every file of an audit with broken, mild and kept rules."""
    folder = tmp_path_factory.mktemp("files")
    policy = write_policy(
        folder,
        FACES + "max_units = 0",
        'name = "text \\u0007 <&|"\ngroups = ["text"]\nmax_units = 0\nseverity = "warning"',
        'name = "no race"\ngroups = ["race"]\nlook = ["label"]\nmax_units = 0',
        'name = "labels"\nmin_correlation = 0.9',
    )
    names = {"--json": "a.json", "--junit": "j.xml", "--sarif": "s.json", "--markdown": "m.md"}
    flags = [part for flag, name in names.items() for part in (flag, folder / name)]
    done = milan("audit", run_path, "--policy", policy, *flags)
    assert done.returncode == GATE, done.stderr
    return folder


def test_sarif_is_valid_and_names_units(files: Path) -> None:
    log = json.loads((files / "s.json").read_text())
    schema = json.loads((SCHEMAS / "sarif-schema-2.1.0.json").read_text())
    jsonschema.validators.validator_for(schema)(schema).validate(log)
    run = log["runs"][0]
    assert run["tool"]["driver"]["rules"][0]["id"] == "faces"
    results = run["results"]
    assert {result["ruleIndex"] for result in results} == {0, 1, 3}
    for result in results:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    first = results[0]
    assert first["level"] == "error"
    place = first["locations"][0]
    assert place["logicalLocations"][0]["fullyQualifiedName"] == "model.onnx/relu6/0"
    assert place["physicalLocation"]["region"]["startLine"] == 1
    prints = [r["partialFingerprints"]["milanUnit/v1"] for r in results if r["ruleIndex"] < 3]
    assert len(set(prints)) == len(prints)


def test_junit_is_valid_and_has_a_case_a_rule(files: Path) -> None:
    schema = etree.XMLSchema(etree.parse(SCHEMAS / "junit-10.xsd"))
    tree = etree.parse(files / "j.xml")
    schema.assertValid(tree)
    suite = tree.getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("4", "2")
    cases = suite.findall("testcase")
    failed = [case.get("name") for case in cases if case.find("failure") is not None]
    assert failed == ["faces", "labels"]
    assert 'label "human faces" (faces: human face)' in cases[0].find("failure").text
    assert cases[1].find("system-out").text.startswith("warning: ")


def test_markdown_shows_names_as_they_are(files: Path) -> None:
    page = (files / "m.md").read_text()
    assert "| faces | error | **broken** | 2 of 12 units (16.7 %) | at most 0 units |" in page
    assert "<b>" not in page.replace("\\<b\\>", "")
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert all(line.replace("\\|", "").count("|") in (6, 7) for line in rows)


def test_markdown_is_appended_to_a_jobs_summary(
    milan: Command, run_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("# before\n")
    policy = write_policy(tmp_path, FACES + "max_units = 5")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    done = milan("audit", run_path, "--policy", policy, "--markdown", "-")
    assert (done.returncode, done.stdout) == (USAGE, "")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert milan("audit", run_path, "--policy", policy, "--markdown", "-").returncode == 0
    assert summary.read_text().startswith("# before\n## Audit of model")


# --- two networks --------------------------------------------------------------------------------


def test_a_baseline_shows_what_only_this_network_has(
    milan: Command, described: Path, run_path: Path, tmp_path: Path
) -> None:
    other = relabelled(described, tmp_path / "other", {7: "human face", 8: "a human face"})
    policy = write_policy(tmp_path, FACES + 'max_increase = "20%"', 'name = "d"\nmax_dead = 1.0')
    more = ("--baseline", other)
    found = audited(milan, run_path, policy, tmp_path, *more)["rules"]
    assert found[1]["comparison"] is None
    assert found[0]["comparison"] == {
        "units": UNITS,
        "hits": 2,
        "increase": 0.0,
        "concepts": [
            {"group": "faces", "term": "human face", "here": 1, "there": 2},
            {"group": "skin", "term": "skin", "here": 1, "there": 0},
        ],
        "only_here": ["skin: skin"],
    }
    done = milan("audit", run_path, "--policy", policy, *more)
    assert "in the baseline; only here: skin: skin 1" in done.stdout
    plain = relabelled(described, tmp_path / "plain", {})
    policy = write_policy(tmp_path, FACES + 'max_increase = "10%"')
    assert audited(milan, run_path, policy, tmp_path, "--baseline", plain)["broken"] == ["faces"]


# --- a model -------------------------------------------------------------------------------------


def test_a_model_is_described_first(
    milan: Command, subject_path: Path, photos: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model.onnx"
    shutil.copy(subject_path, model)
    policy = write_policy(tmp_path, FACES + "max_units = 99")
    line = ("audit", "model.onnx", "--policy", policy, "--images", photos, "--limit", 24)
    done = milan(*line, "--layer", "relu6", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model-run" / "report.html").is_file()
    assert "describing the model first" in done.stderr
    again = milan(*line, "--layer", "relu6", "--out", "model-run", cwd=tmp_path)
    assert again.returncode == 0 and "nothing to do" in again.stderr
    other = milan(*line, "--layer", "relu1", "--out", "model-run", cwd=tmp_path)
    assert other.returncode == USAGE and "--overwrite" in other.stderr


# --- mistakes ------------------------------------------------------------------------------------


def test_the_default_policy_is_said_and_printed(milan: Command, run_path: Path) -> None:
    assert "policy: the default one" in milan("audit", run_path).stderr
    printed = milan("audit", "--print-policy")
    assert printed.returncode == 0 and printed.stdout.startswith("# The policy of")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("max_importance = 0.1", "wants importances; give --importance FILE"),
        ('max_increase = "1%"', "wants a baseline; give --baseline RUN"),
    ],
)
def test_what_a_rule_wants_must_be_given(
    milan: Command, run_path: Path, tmp_path: Path, rule: str, said: str
) -> None:
    done = milan("audit", run_path, "--policy", write_policy(tmp_path, FACES + rule))
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert done.stderr.count("\n") == 1 and said in done.stderr


def test_validity_must_have_been_tested(milan: Command, run_path: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_path, run)
    lines = [json.loads(line) for line in (run / "labels.jsonl").read_text().splitlines()]
    text = "".join(json.dumps({**line, "validity": None}) + "\n" for line in lines)
    (run / "labels.jsonl").write_text(text)
    policy = write_policy(tmp_path, 'name = "a"\nmax_abstained = 0.5')
    done = milan("audit", run, "--policy", policy)
    assert done.returncode == USAGE and "describe with --validity" in done.stderr


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ((), USAGE, "nothing to audit"),
        (("nowhere",), BAD_DATA, "nowhere is not a run"),
        (("RUN", "--layer", "relu6"), USAGE, "--layer goes with a model"),
        (("RUN", "--out", "x"), USAGE, "--out goes with a model"),
        (("RUN", "--policy", "gone.toml"), BAD_DATA, "cannot read the policy gone.toml"),
        (("RUN", "--policy", "bad.toml"), BAD_DATA, "unknown key 'rules'"),
        (("RUN", "--policy", "mute.toml"), BAD_DATA, "knows none of the words"),
        (("RUN", "--baseline", "gone"), BAD_DATA, "gone is not a run"),
        (("RUN", "--importance", "gone.csv"), BAD_DATA, "cannot read gone.csv"),
        (("RUN", "--importance", "bad.toml"), BAD_DATA, "row 1 of bad.toml"),
        (("RUN", "--importance", "few.csv"), BAD_DATA, "lack unit"),
        (("RUN", "--images", "empty"), BAD_DATA, "empty"),
        (("RUN", "--sarif", "gone/s.json"), ENVIRONMENT, "there is no folder gone"),
    ],
)
def test_mistakes_are_one_sentence(
    milan: Command, run_path: Path, tmp_path: Path, line: tuple[str, ...], code: int, said: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.toml").write_text("version = 1\nrules = 3\n")
    (tmp_path / "few.csv").write_text("layer,unit,importance\nrelu6,11,1\n")
    mute = 'name = "m"\ngroups = ["watermark"]\nlook = ["phrases"]\nmax_units = 1'
    write_policy(tmp_path, mute).rename(tmp_path / "mute.toml")
    arguments = [run_path if part == "RUN" else part for part in line]
    done = milan("audit", *arguments, "--quiet", cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert said in done.stderr


def test_a_damaged_run_is_no_traceback(run_path: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_path, run)
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["model"]["sha256"]
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match="sha256"):
        audit_run(run)


def test_in_python(run_path: Path) -> None:
    found = audit_run(load_run(run_path))
    assert len(found.verdicts) == 7
    assert found.broken == tuple(
        v for v in found.verdicts if v.broken and v.rule.severity == "error"
    )
    assert len(read_jsonl(run_path / "labels.jsonl")) == UNITS
