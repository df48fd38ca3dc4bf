"""Recipes: one TOML file a training run, read into dataclasses with every key checked."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from milan_onnx.errors import UsageError

T = TypeVar("T")
RECIPES = Path(__file__).with_name("recipes")
"""Recipes that ship."""


def find_recipe(name: str) -> Path:
    """A file, or a recipe that ships by its name. Raises UsageError where neither is there."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = sorted(p.stem for p in RECIPES.glob("*.toml"))
    if name in shipped:
        return RECIPES / f"{name}.toml"
    raise UsageError(
        f"{name} is neither a recipe file nor one that ships",
        hint=f"give a TOML file, or one of {', '.join(shipped)}",
    )


def load_recipe(name: str, changes: Sequence[str] = ()) -> dict[str, Any]:
    """A recipe's table with the tables of its ``base``, and settings KEY=VALUE, put in.

    A key may be a path (``units.mix.pair=0``); a value is TOML, or a word. Raises UsageError for a
    recipe that is none, or that is its own base.
    """
    table = _with_base(find_recipe(name), ())
    for change in changes:
        key, sign, text = change.partition("=")
        if not sign:
            raise UsageError(f"--set {change} is no KEY=VALUE", hint="--set captioner.steps=500")
        table = _merged(table, _nested(key.strip().split("."), _toml(text.strip())))
    return table


def _with_base(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    table = read_table(path)
    name = table.pop("base", None)
    if name is None:
        return table
    beside = path.with_name(f"{name}.toml")
    below = beside if beside.is_file() else find_recipe(str(name))
    if below.resolve() in (path.resolve(), *above):
        raise UsageError(f"{path} is its own base", hint="name another recipe as base")
    return _merged(_with_base(below, (*above, path.resolve())), table)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        merged[key] = _merged(base[key], value) if both else value
    return merged


def _nested(keys: Sequence[str], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    return dict(value)


def _toml(text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def read_table(path: Path) -> dict[str, Any]:
    """The TOML of a recipe. Raises UsageError where it is none."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} is not a recipe: {error}", hint="see docs/training.md") from error


def build(kind: type[T], table: Mapping[str, Any], where: str) -> T:
    """A dataclass from a table; ``where`` names the table in errors.

    Raises UsageError for a key that is unknown, missing or of another type.
    """
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise UsageError(f"{where} has no setting {key!r}", hint=hint)
    for name, field in known.items():
        needed = field.default is MISSING and field.default_factory is MISSING
        if needed and name not in table:
            raise UsageError(f"{where} lacks the setting {name!r}", hint="see docs/training.md")
    made = {key: _value(hints[key], value, f"{where}.{key}") for key, value in table.items()}
    return kind(**made)


def _value(kind: Any, value: Any, where: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        kind = next(part for part in inner if part is not type(None))
        return _value(kind, value, where)
    if origin is Literal and value not in inner:
        raise UsageError(f"{where} is {value!r}", hint=f"give {' or '.join(map(str, inner))}")
    if is_dataclass(kind) and isinstance(value, Mapping):
        return build(kind, value, where)  # type: ignore[arg-type]
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {key: _value(inner[1], part, f"{where}.{key}") for key, part in value.items()}
    if origin in (tuple, frozenset) and isinstance(value, list):
        return origin(_value(inner[0], part, where) for part in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    plain = kind if origin is None else str
    if plain is Path and isinstance(value, str):
        return Path(value)
    if (
        not isinstance(plain, type)
        or not isinstance(value, plain)
        or (isinstance(value, bool) and plain is not bool)
    ):
        name = getattr(plain, "__name__", str(plain))
        raise UsageError(f"{where} is {value!r}, not a {name}", hint="see docs/training.md")
    return value
