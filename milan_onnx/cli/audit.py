"""``milan-onnx audit``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from milan_onnx.cli.describe import default_out, options
from milan_onnx.cli.guard import guarded
from milan_onnx.cli.say import PATH, PLACE, console, name_results

POLICY = [
    click.option("--policy", type=PATH, help="The policy, TOML; by default the one that ships."),
    click.option("--print-policy", is_flag=True, help="Print the one that ships, and end."),
    click.option(
        "--fail-on",
        type=click.Choice(["error", "warning", "note"]),
        default="error",
        help="End with 3 where a rule of at least this severity is broken.",
    ),
    click.option("--importance", type=PATH, help="Importance of each unit, CSV or JSON."),
    click.option("--baseline", type=PATH, help="Run of another network: what has only this one?"),
]
OUTPUT = [
    click.option("--units", is_flag=True, help="Print the units found, not the rules."),
    click.option("--json", "json_file", type=PATH, help="Write everything as JSON."),
    click.option("--junit", type=PATH, help="Write JUnit XML, a test case a rule."),
    click.option("--sarif", type=PATH, help="Write SARIF 2.1.0, a result a unit."),
    click.option(
        "--markdown",
        type=PATH,
        help="Write Markdown; -: append it to the file that $GITHUB_STEP_SUMMARY names.",
    ),
]
MODEL = [
    click.option("--layer", "-l", "layers", multiple=True, help="Of a MODEL: layer to describe."),
    click.option("--limit", type=int, help="Of a MODEL: use only so many photos."),
    click.option("--out", "-o", type=PATH, help="Of a MODEL: folder of its run."),
    click.option("--overwrite", is_flag=True, help="Of a MODEL: replace a run that is there."),
]
BOTH = [
    click.option(
        "--images", "-i", type=PLACE, help="Of a RUN: its photos, where they moved; else photos."
    ),
    click.option("--bundle", type=PATH, help="Captioner; by default RUN's, or the built-in one."),
    click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N."),
    click.option("--threads", type=int, help="Batches in flight; by default the processors."),
    click.option("--quiet", "-q", is_flag=True, help="Say only errors."),
]
ONLY_MODEL = {"layers": (), "limit": None, "out": None, "overwrite": False}
FILES = ("json_file", "junit", "sarif", "markdown")
SUMMARY = "GITHUB_STEP_SUMMARY"


@click.command(short_help="Hold a run, or a model, against a policy.")
@click.argument("target", metavar="RUN|MODEL", type=PATH, required=False)
@options(POLICY, OUTPUT, MODEL, BOTH)
@guarded
def audit(target: Path | None, **given: Any) -> None:
    """Look for units of what a policy forbids, in RUN, a folder that describe wrote, or in MODEL,
    an ONNX file, which is described first.

    Concepts are looked for in labels, in their candidates, and by scoring phrases that no label
    says. Ends with 3 where a rule is broken; docs/audit.md says how far to trust the answer.
    """
    from milan_onnx.applications.audit import AuditOptions, audit_run, default_policy_text
    from milan_onnx.applications.phrases import Scoring

    if given["print_policy"]:
        print(default_policy_text(), end="")
        return
    summary = _check_usage(target, given)
    say = console(given["quiet"])
    policy = _policy(given["policy"])
    run, images, bundle = _run(target, given, say)
    scoring = Scoring(images, bundle, given["device"], given["threads"])
    settings = AuditOptions(given["importance"], given["baseline"], given["fail_on"], scoring)
    found = audit_run(run, policy, options=settings, reporter=say)
    _write(found, given, summary, say)
    _show(found, given["units"])
    _end(found, say)


def _check_usage(target: Path | None, given: dict[str, Any]) -> Path | None:
    """Raise UsageError for options that do not go together; the file of a job's summary."""
    from milan_onnx.errors import OutputUnwritable, UsageError

    if target is None:
        raise UsageError("there is nothing to audit", hint="give a run's folder, or an ONNX file")
    for name, default in ONLY_MODEL.items():
        if given[name] != default and not target.is_file():
            raise UsageError(
                f"--{name.removesuffix('s')} goes with a model, and {target} is no file",
                hint="to audit some layers of a run, name them in the policy",
            )
    for path in (given[name] for name in FILES):
        if path is not None and not path.parent.is_dir():
            raise OutputUnwritable(f"there is no folder {path.parent}", hint="make it first")
    if given["markdown"] != Path("-"):
        return None
    if not os.environ.get(SUMMARY):
        raise UsageError(
            f"--markdown - wants the variable {SUMMARY}, which is not set", hint="give a file"
        )
    return Path(os.environ[SUMMARY])


def _policy(path: Path | None) -> Any:
    """Read before a model is described, which takes long."""
    from milan_onnx.applications.audit import read_policy

    return None if path is None else read_policy(path)


def _run(
    target: Path | None, given: dict[str, Any], say: Any
) -> tuple[Any, Path | None, Path | None]:
    """The run, its photos and its captioner where they are not where it says."""
    if target is None or not target.is_file():
        return target, given["images"], given["bundle"]
    from milan_onnx.describing import DescribeOptions, describe

    out = given["out"] or default_out(target, say, given["overwrite"])
    same = ("limit", "device", "threads", "overwrite")
    settings = DescribeOptions(**{name: given[name] for name in same})
    layers, images, bundle = list(given["layers"]) or None, given["images"], given["bundle"]
    say.note("describing the model first; `milan-onnx describe` has more settings")
    run = describe(target, layers, images, out, bundle=bundle, options=settings, reporter=say)
    name_results(out, say, report=True)
    return run, None, bundle


def _write(found: Any, given: dict[str, Any], summary: Path | None, say: Any) -> None:
    from milan_onnx.applications.audit.junit import junit
    from milan_onnx.applications.audit.markdown import markdown
    from milan_onnx.applications.audit.sarif import sarif
    from milan_onnx.files import write_bytes, write_json

    if given["json_file"]:
        write_json(given["json_file"], found.to_json())
    if given["sarif"]:
        write_json(given["sarif"], sarif(found))
    if given["junit"]:
        write_bytes(given["junit"], junit(found))
    page = markdown(found).encode("utf-8", "backslashreplace") if given["markdown"] else b""
    if summary is not None:
        _append(summary, page)
    elif given["markdown"]:
        write_bytes(given["markdown"], page)
    written = {"json": given["json_file"], "sarif": given["sarif"], "junit": given["junit"]}
    for name, path in (written | {"markdown": summary or given["markdown"]}).items():
        if path:
            say.note(f"{name}: {path}")


def _append(path: Path, page: bytes) -> None:
    """The summary is of the whole job: others write to it too."""
    from milan_onnx.files import unwritable

    try:
        with path.open("ab") as file:
            file.write(page)
    except OSError as error:
        raise unwritable(path, error) from error


def _show(found: Any, units: bool) -> None:
    from milan_onnx.applications.audit import wording as words
    from milan_onnx.applications.audit.result import surest_first
    from milan_onnx.cli.table import print_table

    if units:
        column, figure = words.trust_column(hit for v in found.verdicts for hit in v.hits)
        print_table(
            ("rule", "layer", "unit", "label", column, "because"),
            [
                (
                    verdict.rule.name,
                    hit.layer,
                    hit.unit,
                    hit.description or "-",
                    figure(hit),
                    ", ".join(map(words.evidence_text, hit.evidence)),
                )
                for verdict in found.verdicts
                for hit in surest_first(verdict.hits)
            ],
        )
        return
    rows = [
        (
            verdict.rule.name,
            verdict.rule.severity,
            words.state(verdict),
            words.found_texts(verdict),
            words.limits_text(verdict),
            words.concepts_text(verdict),
        )
        for verdict in found.verdicts
    ]
    print_table(("rule", "severity", "state", "found", "allowed", "concepts"), rows)


def _end(found: Any, say: Any) -> None:
    """Say how it went. Raises GateNotMet where the policy is broken."""
    from milan_onnx.applications.audit.wording import summary_text
    from milan_onnx.errors import GateNotMet

    if found.broken:
        raise GateNotMet(
            f"the policy is broken: {summary_text(found)}",
            hint="--units lists the units, the run's report shows what excites them",
        )
    mild = [verdict for verdict in found.verdicts if verdict.broken]
    for verdict in mild:
        say.note(f"{verdict.rule.severity}: broken, but no failure: {verdict.rule.name}")
    say.note("the policy is kept")
