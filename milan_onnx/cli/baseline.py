"""``describe --baseline``: the new run held against an earlier one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from milan_onnx.cli.say import PATH

BASELINE = [
    click.option(
        "--baseline",
        type=PATH,
        help="Earlier run: say at the end which descriptions changed (`diff` says more of it).",
    ),
    click.option(
        "--max-changed",
        metavar="SHARE",
        help="End with 3 where more of them changed, were gained or lost: 2% or 0.02.",
    ),
]


@dataclass(frozen=True)
class Baseline:
    """What a new run is held against."""

    run: Any
    """The earlier run; None: nothing is compared."""

    limit: float | None
    """Share of the descriptions that may change; None: any."""

    def compare(self, out: Path, say: Any) -> None:
        """Say what the run in a folder changed. Raises GateNotMet where that is too much."""
        if self.run is None:
            return

        from milan_onnx.applications.diff import DiffOptions, check_gates, diff_runs
        from milan_onnx.applications.diff.tables import headline, layer_sentence
        from milan_onnx.run import load_run

        found = diff_runs(self.run, load_run(out), DiffOptions(), say)
        for text in (*found.notes, *map(layer_sentence, found.layers), headline(found)):
            say.note(text)
        check_gates(found, self.limit, None)


def read_baseline(given: dict[str, Any]) -> Baseline:
    """The baseline of a command's options, read before any work."""
    from milan_onnx.errors import UsageError

    if given["baseline"] is None:
        if given["max_changed"] is not None:
            raise UsageError("--max-changed goes with --baseline only", hint="see --help")
        return Baseline(None, None)

    from milan_onnx.cli.parse import parse_share
    from milan_onnx.run import load_run

    limit = parse_share("--max-changed", given["max_changed"])
    return Baseline(load_run(given["baseline"]), limit)
