"""``milan-onnx selftest``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from milan_onnx.cli.guard import guarded
from milan_onnx.cli.say import PATH, console

if TYPE_CHECKING:
    from milan_onnx.selftest import SelfTest, Verdict

SHOWN = 3
"""Accepted phrases that the table shows a unit; --json has all."""


@click.command(short_help="Describe units whose meaning is known, and judge it.")
@click.option("--bundle", type=PATH, help="Captioner bundle; by default the built-in one.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=int, help="Batches in flight; by default the processors.")
@click.option(
    "--synthetic",
    default=1000,
    type=click.IntRange(min=15),
    help="Images of the built-in set; with fewer than 1000 it is quicker and proves less.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--quiet", "-q", is_flag=True, help="Say only errors.")
@guarded
def selftest(
    bundle: Path | None,
    device: str,
    threads: int | None,
    synthetic: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Describe units whose meaning is known, with the installed bundle and device, and judge it.

    The units are detectors made in code (colours, lines, patterns, shapes, text, things, pairs).
    Ends with 3 unless 90 % of the descriptions are right and fewer than 10 % would be if each unit
    had the label of another.
    """
    from milan_onnx.cli.table import print_table
    from milan_onnx.errors import GateNotMet
    from milan_onnx.selftest import selftest as work

    say = console(quiet)
    done = work(bundle, device=device, threads=threads, images=synthetic, reporter=say)
    if as_json:
        print(json.dumps(_facts(done), indent=1, ensure_ascii=False))
    else:
        print_table(
            ("verdict", "planted", "description", "right would be"), map(_row, done.verdicts)
        )
    if not done.passed:
        wrong = ", ".join(v.planted.plants for v in done.verdicts if not v.right)
        raise GateNotMet(
            f"selftest failed: {_summary(done)}; wrong: {wrong or 'none'}",
            hint="where `milan-onnx doctor` and `milan-onnx bundle verify` find nothing wrong, the "
            "bundle does not know these",
        )
    say.note(f"selftest passed: {_summary(done)}")


def _row(verdict: Verdict) -> tuple[object, ...]:
    accepted = verdict.planted.accepted
    more = ", ..." if len(accepted) > SHOWN else ""
    shown = "" if verdict.right else ", ".join(accepted[:SHOWN]) + more
    state = "right" if verdict.right else "wrong"
    return state, verdict.planted.plants, verdict.description or "-", shown


def _summary(done: SelfTest) -> str:
    right = sum(verdict.right for verdict in done.verdicts)
    return (
        f"{right} of {len(done.verdicts)} planted units right ({done.share_right:.0%}, at least "
        f"90% wanted), {done.share_shuffled:.1%} with labels of other units (below 10% wanted)"
    )


def _facts(done: SelfTest) -> dict[str, Any]:
    return {
        "passed": done.passed,
        "share_right": round(done.share_right, 4),
        "share_shuffled": round(done.share_shuffled, 4),
        "bundle": done.manifest["bundle"],
        "probe": done.manifest["probe"]["sha256"],
        "device": done.manifest["environment"]["device"],
        "units": [
            {
                "layer": verdict.planted.layer,
                "unit": verdict.planted.unit,
                "planted": verdict.planted.plants,
                "description": verdict.description,
                "right": verdict.right,
                "accepted": list(verdict.planted.accepted),
            }
            for verdict in done.verdicts
        ],
    }
