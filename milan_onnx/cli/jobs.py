"""``milan-onnx describe --job``: several models, one after another, from a TOML file.

    out = "runs"                    # their runs are out/NAME; by default runs, beside this file

    [defaults]                      # any option of describe, by its long name
    images = "photos"
    limit = 2000

    [[model]]
    path = "resnet18.onnx"          # or a glob: each file that fits is a model
    layers = ["layer3", "layer4"]
    name = "resnet"                 # by default the file's

Values go through the command's own parser, so a job file says and is refused what the command line
is. Paths are relative to the file. A model that fails does not stop the others.
"""

from __future__ import annotations

import json
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from milan_onnx.cli.baseline import read_baseline
from milan_onnx.cli.cache import open_cache
from milan_onnx.cli.describe import describe, describe_model, settings
from milan_onnx.cli.guard import INTERRUPTED, end, failure
from milan_onnx.cli.table import print_table
from milan_onnx.errors import BadInput, UsageError
from milan_onnx.files import is_url, write_csv, write_json

TOP = ("defaults", "model", "out")
OWN = ("layers", "name", "path")
"""Keys of a model that are no options of describe."""
COMMAND_ONLY = ("cache", "cache-size", "job", "layer", "no-cache", "quiet")
"""Options that a job file does not take: they are of the whole, or have another name there."""
NO_OPTION = "is no option of describe"
GLOB = frozenset("*?[")
SUMMARY = "summary"


@dataclass(frozen=True)
class Item:
    """One model of a job."""

    name: str
    """What its run is called."""

    model: Path
    """The file."""

    given: Mapping[str, Any]
    """Options of describe, as the command has them."""


@dataclass(frozen=True)
class Outcome:
    """What became of one model: a row of the summary."""

    name: str
    """What its run is called."""

    model: str
    """The file."""

    exit_code: int
    """What the command would have ended with for this model alone."""

    error: str
    """Why it failed; '' where it did not."""

    run: str
    """The run's folder; '' where there is none."""

    layers: int
    """Layers described."""

    units: int
    """Units described and not."""

    described: int
    """Units that have a description."""

    abstained: int
    """Of these, the ones that abstain."""

    seconds: float
    """Wall time."""


def describe_job(path: Path, context: click.Context, say: Any) -> None:
    """Describe the models of a job file; ends with the largest of their exit codes.

    Raises BadInput naming everything that is wrong with the file, before any work.
    """
    given = _from_command_line(context)
    items, out = read_job(path, given)
    cache = open_cache(context.params, say)
    outcomes: list[Outcome] = []
    try:
        for number, item in enumerate(items, 1):
            say.note(f"model {number} of {len(items)}: {item.name} ({item.model})")
            outcomes.append(_describe(item, say, cache))
    except KeyboardInterrupt:
        end(f"interrupted: {len(outcomes)} of {len(items)} models are done", INTERRUPTED)
    _write_summary(out, outcomes)
    columns = ("name", "exit_code", "layers", "units", "described", "abstained", "seconds", "error")
    rows = [[asdict(outcome)[column] for column in columns] for outcome in outcomes]
    print_table(columns, rows)
    say.note(f"summary: {out / SUMMARY}.json, {out / SUMMARY}.csv")
    worst = max(outcome.exit_code for outcome in outcomes)
    if worst:
        sys.stdout.flush()
        sys.exit(worst)


def _describe(item: Item, say: Any, cache: Any) -> Outcome:
    begin = time.monotonic()
    run, code, error = None, 0, ""
    try:
        before = read_baseline(dict(item.given))
        run = describe_model(item.model, dict(item.given), say, cache, lambda label: None)
        before.compare(run.path, say)
    except Exception as problem:  # a fault of the program must not cost the other models either
        code, error = failure(problem)
        say.note(f"error: {item.name}: {error}")
    labels = run.labels if run else ()
    return Outcome(
        name=item.name,
        model=str(item.model),
        exit_code=code,
        error=error,
        run=str(run.path) if run else "",
        layers=len(run.layers) if run else 0,
        units=len(labels),
        described=sum(label.description is not None for label in labels),
        abstained=sum("abstained" in label.flags for label in labels),
        seconds=round(time.monotonic() - begin, 2),
    )


def _write_summary(out: Path, outcomes: Sequence[Outcome]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    rows = [asdict(outcome) for outcome in outcomes]
    write_json(out / f"{SUMMARY}.json", rows)
    header = list(rows[0])
    write_csv(out / f"{SUMMARY}.csv", header, [[row[name] for name in header] for row in rows])


# --- the file -----------------------------------------------------------------------------------


def read_job(path: Path, given: Mapping[str, Any]) -> tuple[list[Item], Path]:
    """The models of a job file and the folder of their runs; ``given``: options that win.

    Raises BadInput naming everything that is wrong with the file.
    """
    whole = _parsed(path)
    problems = [f"{key} is no key of a job" for key in whole if key not in TOP]
    defaults = whole.get("defaults", {})
    models = whole.get("model", [])
    if not isinstance(defaults, dict):
        problems.append("[defaults] is not a table")
        defaults = {}
    if not isinstance(models, list) or not models or not all(isinstance(m, dict) for m in models):
        problems.append("it has no [[model]]")
        models = []
    out = given.get("out") or _folder(path, whole.get("out", "runs"), problems)
    items = []
    for number, model in enumerate(models, 1):
        found = _Section(path, f"model {number}", defaults, model, out)
        items += found.items(given)
        problems += found.problems
    problems += _clashes(items)
    if problems:
        raise BadInput(
            f"the job file {path} cannot be used: {'; '.join(dict.fromkeys(problems))}",
            hint="docs/batch.md says what it may hold",
        )
    return items, out


class _Section:
    """One [[model]] of a job file, with the defaults."""

    def __init__(
        self, path: Path, where: str, defaults: dict[str, Any], own: dict[str, Any], out: Path
    ) -> None:
        self._base = path.parent
        self._where = where
        self._defaults = defaults
        self._own = own
        self._out = out
        self.problems: list[str] = []

    def items(self, given: Mapping[str, Any]) -> list[Item]:
        """The models that it stands for; what is wrong with it is in ``problems``."""
        parsed = self._parse([*self._arguments()])
        name, layers, models = self._name(), self._layers(), self._models()
        if self.problems:
            return []
        own_out = parsed["out"] if "out" not in given else None
        options = {**parsed, "layers": layers, **given}
        try:
            settings(options).check()
        except UsageError as error:
            self.problems.append(f"{self._where}: {error.message}")
            return []
        return [self._item(model, name, own_out, options) for model in models]

    def _item(
        self, model: Path, name: str | None, own_out: Path | None, options: dict[str, Any]
    ) -> Item:
        """One of the models; where ``path`` is a glob each has a folder of its own."""
        several = self._is_glob()
        called = f"{name}-{model.stem}" if name and several else (name or model.stem)
        out = (own_out or self._out) / called if several or own_out is None else own_out
        return Item(called, model, options | {"out": out})

    def _name(self) -> str | None:
        name = self._own.get("name")
        if name is None or (isinstance(name, str) and name != ".." and Path(name).name == name):
            return name
        self.problems.append(f"{self._where}: name is {name!r}, not the name of a folder")
        return None

    def _layers(self) -> tuple[str, ...]:
        layers = self._own.get("layers", self._defaults.get("layers", []))
        layers = [layers] if isinstance(layers, str) else layers
        if isinstance(layers, list) and all(isinstance(name, str) for name in layers):
            return tuple(layers)
        self.problems.append(f"{self._where}: layers is no list of names")
        return ()

    def _is_glob(self) -> bool:
        text = self._own.get("path", "")
        return bool(GLOB.intersection(text)) and not (self._base / text).is_file()

    def _models(self) -> list[Path]:
        """The files that ``path`` names, at least one."""
        text = self._own.get("path")
        if not isinstance(text, str) or not text:
            self.problems.append(f"{self._where} has no path")
            return []
        if not self._is_glob():
            return [self._base / text]
        pattern = Path(text)
        root = Path(pattern.anchor) if pattern.anchor else self._base
        found = sorted(
            p for p in root.glob(str(pattern.relative_to(pattern.anchor))) if p.is_file()
        )
        if not found:
            self.problems.append(f"{self._where}: no file fits {text}")
        return found

    def _arguments(self) -> Iterator[str]:
        """Defaults and own options as arguments of the command."""
        known = _options()
        shared = {*known, "layers"} - {"out"}
        for key in sorted(self._defaults.keys() - shared):
            why = "is of the whole job, above [defaults]" if key == "out" else NO_OPTION
            self.problems.append(f"[defaults]: {key} {why}")
        for key in sorted(self._own.keys() - {*known, *OWN}):
            self.problems.append(f"{self._where}: {key} {NO_OPTION}")
        for key, value in (self._defaults | self._own).items():
            if key in known and (key != "out" or key in self._own):
                yield from self._argument(known[key], key, value)

    def _argument(self, option: click.Option, key: str, value: Any) -> Iterator[str]:
        if option.is_flag:
            if not isinstance(value, bool):
                self.problems.append(f"{self._where}: {key} is {value!r}, not true or false")
            elif value or option.secondary_opts:
                yield f"--{key}" if value else option.secondary_opts[0]
            return
        for part in _parts(option, value):
            if isinstance(part, bool) or not isinstance(part, str | int | float):
                self.problems.append(f"{self._where}: {key} has a value of the wrong kind")
                return
            is_path = isinstance(option.type, click.Path)
            here = is_path and not is_url(part)
            yield f"--{key}={self._base / str(part) if here else part}"

    def _parse(self, arguments: list[str]) -> dict[str, Any]:
        """Options as the command has them; its refusals are problems."""
        try:
            context = describe.make_context("describe", ["model", *arguments])
        except click.ClickException as error:
            self.problems.append(f"{self._where}: {error.format_message().rstrip('.')}")
            return {"out": None}
        values = dict(context.params)
        for name in ("model", "job"):
            values.pop(name)
        return values


def _parts(option: click.Option, value: Any) -> list[Any]:
    """The values of an option: several where it may be given often, one otherwise."""
    if option.name == "inputs" and isinstance(value, dict):
        return [f"{name}={json.dumps(number)}" for name, number in value.items()]
    if isinstance(value, list) and option.multiple:
        return value
    if isinstance(value, list) and option.metavar == "R,G,B":
        return [",".join(map(str, value))]
    return [value]


def _options() -> dict[str, click.Option]:
    """The options of describe that a job file may set, by their long names."""
    return {
        name.removeprefix("--"): option
        for option in describe.params
        if isinstance(option, click.Option)
        for name in option.opts
        if name.startswith("--") and name.removeprefix("--") not in COMMAND_ONLY
    }


def _from_command_line(context: click.Context) -> dict[str, Any]:
    """The options that were given on the command line."""
    from click.core import ParameterSource

    given = {
        name: value
        for name, value in context.params.items()
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    return {name: value for name, value in given.items() if name not in ("job", "model")}


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BadInput(f"cannot read the job file {path}: {reason}", hint="check it") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadInput(f"the job file {path} is not TOML: {error}", hint="mend it") from error


def _folder(path: Path, text: Any, problems: list[str]) -> Path:
    if not isinstance(text, str) or not text:
        problems.append(f"out is {text!r}, not a folder")
        return path.parent
    return path.parent / text


def _clashes(items: Sequence[Item]) -> list[str]:
    """Runs that would overwrite each other."""
    counts = Counter(str(item.given["out"]) for item in items)
    return [
        f"{n} models have the run {out}; give each a name" for out, n in counts.items() if n > 1
    ]
