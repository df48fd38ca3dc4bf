"""The command line: each command parses, calls one function of the package, prints.

Data goes to stdout, everything else to stderr. A user's mistake is one sentence and an exit code
(see `milan_onnx.errors`); 130 after Ctrl-C. Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations


def main() -> None:
    """Entry point of ``milan-onnx``."""
    from milan_onnx.cli.app import app
    from milan_onnx.cli.guard import guarded, usable_streams

    usable_streams()
    guarded(app)(prog_name="milan-onnx")
