#!/usr/bin/env python3
"""What the images of the Dockerfile hold, without a container engine.

    ci/image_files.py cpu            install as the Dockerfile does; print every file with its bytes
    ci/image_files.py gpu --resolve  only resolve: print every distribution that would be installed

An image is its base, which is Python's own, and one virtual environment. This makes that
environment with the Dockerfile's own commands, in a temporary folder. It ends with 3 where the
environment holds what no image may: PyTorch, a compiler, pip, or tests.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = "/opt/milan"
FORBIDDEN_NAMES = ("torch", "torchvision", "triton", "pip", "setuptools", "pytest", "hypothesis")
FORBIDDEN_PROGRAMS = re.compile(r"bin/(pip|gcc|g\+\+|cc|c\+\+|clang|ld|nvcc|make)[-\d.]*$")
GATE = 3


@dataclass(frozen=True)
class Stage:
    """A stage of the Dockerfile."""

    base: str
    """The image or stage that it is made from."""

    instructions: tuple[tuple[str, str], ...]
    """Each instruction and what it is given, build arguments filled in with their defaults."""

    def runs(self) -> list[str]:
        """Its shell commands."""
        return [text for word, text in self.instructions if word == "RUN"]


def read_stages(path: Path = ROOT / "Dockerfile") -> dict[str, Stage]:
    """The stages of a Dockerfile by name."""
    stages: dict[str, Stage] = {}
    arguments: dict[str, str] = {}
    current = ""
    for word, text in _instructions(path.read_text(encoding="utf-8")):
        if word == "ARG":
            argument, _, default = text.partition("=")
            arguments[argument] = default
        elif word == "FROM":
            base, _, current = text.partition(" AS ")
            stages[current] = Stage(_filled(base, arguments), ())
        else:
            stage = stages[current]
            given = (*stage.instructions, (word, _filled(text, arguments)))
            stages[current] = Stage(stage.base, given)
    return stages


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    """Instructions with their continued lines joined; comments are left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word:
            yield word, " ".join(rest.split())


def _filled(text: str, arguments: dict[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda found: arguments.get(found[1], found[0]), text)


def extras_of(target: str) -> str:
    """The extras that the stage of a target installs, as in ``cpu,serve``."""
    (line,) = read_stages()[f"install-{target}"].runs()
    found = re.search(r"\[([\w,-]+)\]", line)
    assert found is not None, line
    return found[1]


def make_environment(target: str, folder: Path) -> Path:
    """Run the Dockerfile's commands up to the target's installation, below a folder.

    What they name by absolute paths lies in the folder; ``pip`` and ``python`` are this Python's.
    """
    stages = read_stages()
    for stage in ("wheel", f"install-{target}"):
        for line in stages[stage].runs():
            _shell(_moved(line, folder))
    return folder / ENVIRONMENT.lstrip("/")


def _moved(line: str, folder: Path) -> str:
    """A command of the Dockerfile, with its paths below the folder and with this Python."""
    python = shlex.quote(sys.executable)
    line = re.sub(r"(?<![\w/.])/(opt|wheels)\b", lambda m: f"{folder}/{m[1]}", line)
    line = re.sub(r"(^|&& )pip ", lambda m: f"{m[1]}{python} -m pip ", line)
    line = re.sub(r"(^|&& )python ", lambda m: f"{m[1]}{python} ", line)
    return line.replace("/wheels .", f"/wheels {shlex.quote(str(ROOT))}")


def _shell(line: str) -> None:
    print(f"+ {line}", file=sys.stderr)
    quiet = os.environ | {"PIP_QUIET": "1", "PIP_NO_INPUT": "1"}
    subprocess.run(["sh", "-ec", line], check=True, stdout=sys.stderr, env=quiet)


def site_of(environment: Path) -> Path:
    """The folder of an environment that holds its packages."""
    given = {"base": str(environment), "platbase": str(environment)}
    return Path(sysconfig.get_path("purelib", vars=given))


def files_of(environment: Path) -> list[tuple[str, int]]:
    """Every file, as a path below the environment, and its bytes."""
    found = (path for path in environment.rglob("*") if path.is_file() and not path.is_symlink())
    return sorted((path.relative_to(environment).as_posix(), path.stat().st_size) for path in found)


def installed(environment: Path) -> dict[str, str]:
    """Distributions and their versions."""
    found: Iterator[Distribution] = iter(distributions(path=[str(site_of(environment))]))
    return {one.metadata["Name"].lower(): one.version for one in found}


def resolved(target: str) -> dict[str, str]:
    """Distributions and versions that would be installed for a target; nothing is downloaded."""
    what = f"{ROOT}[{extras_of(target)}]"
    line = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    line += ["--only-binary", ":all:", "--report", "-", what]
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True)
    about = [entry["metadata"] for entry in json.loads(done.stdout)["install"]]
    return {one["name"].lower(): one["version"] for one in sorted(about, key=lambda a: a["name"])}


def unwanted(names: Sequence[str], files: Sequence[str] = ()) -> list[str]:
    """What no image may hold, of distributions and files."""
    found = [name for name in names if name in FORBIDDEN_NAMES]
    found += [path for path in files if FORBIDDEN_PROGRAMS.search(path)]
    return found + [path for path in files if re.search(r"site-packages/(torch|tests)/", path)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=("cpu", "gpu"))
    parser.add_argument(
        "--resolve", action="store_true", help="Do not install; name distributions."
    )
    arguments = parser.parse_args()
    if arguments.resolve:
        names, files = resolved(arguments.target), []
        print("\n".join(f"{name} {version}" for name, version in names.items()))
    else:
        with tempfile.TemporaryDirectory() as folder:
            environment = make_environment(arguments.target, Path(folder))
            names, files = installed(environment), files_of(environment)
        print("\n".join(f"{size:>12} {path}" for path, size in files))
        total = sum(size for _, size in files)
        print(f"{len(names)} distributions, {len(files)} files, {total / 1e6:.0f} MB",
              file=sys.stderr)  # fmt: skip
    bad = unwanted(list(names), [path for path, _ in files])
    for thing in bad:
        print(f"error: {thing} is not for an image", file=sys.stderr)
    return GATE if bad else 0


if __name__ == "__main__":
    sys.exit(main())
