"""How long the command takes to say anything: cold `--help`, and the import of the package.

    python -m benchmarks.startup [--rounds 15] [--json FILE]

Processes of their own, in turns with a bare interpreter, which is part of each.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.measure import Contest, report

PROGRAM = str(Path(sys.executable).parent / "milan-onnx")
WAYS = {
    "bare interpreter": [sys.executable, "-c", "pass"],
    "import milan_onnx": [sys.executable, "-c", "import milan_onnx"],
    "milan-onnx --help": [PROGRAM, "--help"],
    "milan-onnx describe --help": [PROGRAM, "describe", "--help"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    timed = Contest()
    ways = {
        name: lambda line=line: subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
        for name, line in WAYS.items()
    }
    timed.run(ways, arguments.rounds, warm=2)
    bare = timed.seconds("bare interpreter")
    rows = [
        [name, f"{1000 * timed.seconds(name):.0f}", f"{1000 * (timed.seconds(name) - bare):.0f}"]
        for name in WAYS
    ]
    report(["command", "ms", "ms above the interpreter"], rows, timed.rounds, arguments.json)


if __name__ == "__main__":
    main()
