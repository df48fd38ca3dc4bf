"""What must not be found in a network, and what must be true of its labels: a policy, in TOML.

    version = 1
    lexicon = "words.toml"          # groups of your own, in a file beside this one

    [groups.brands]                 # or here
    words = ["acme", "logo"]

    [groups.faces]                  # more words for a group that ships
    extend = true
    words = ["selfie stick"]

    [[rule]]                        # on what units are of
    name = "no faces"
    groups = ["faces", "skin"]
    look = ["label", "candidates", "phrases"]
    max_share = "2%"
    severity = "error"

    [[rule]]                        # on the labels: no groups
    name = "labels stand their test"
    max_abstained = "50%"

A policy is read strictly: what is not understood is refused, all of it at once, since a misspelt
limit would otherwise be no limit. docs/audit.md has the keys.
"""

from __future__ import annotations

import math
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from milan_onnx.applications.lexicon import Group, Lexicon, group, read_lexicon, shipped_lexicon
from milan_onnx.applications.standing import RIVALS
from milan_onnx.errors import BadInput
from milan_onnx.files import sha256_bytes

Look = Literal["label", "candidates", "phrases"]
Severity = Literal["error", "warning", "note"]
LOOKS: tuple[Look, ...] = get_args(Look)
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
VERSION = 1
CONCEPT_LIMITS = ("max_units", "max_share", "max_importance", "max_increase")
LABEL_LIMITS = ("max_abstained", "max_dead", "min_correlation")
TOP_KEYS = ("version", "lexicon", "groups", "rule")
FALSE_ALARMS = 0.05


@dataclass(frozen=True)
class Rule:
    """One demand on a network."""

    name: str
    """What reports call it."""

    limits: Mapping[str, float]
    """What is allowed: of CONCEPT_LIMITS where the rule has groups, else of LABEL_LIMITS."""

    groups: tuple[str, ...] = ()
    """Groups of the lexicon; none: the rule is on the labels themselves."""

    look: tuple[Look, ...] = LOOKS
    """Where the groups are looked for."""

    layers: tuple[str, ...] = ()
    """Layers that it is on, by tensor, node or module; none: all."""

    severity: Severity = "error"
    """How bad it is when broken."""

    min_validity: float | None = None
    """A label or candidate counts only where the label's correlation is at least this."""

    false_alarms: float = FALSE_ALARMS
    """Share of the units that phrase scoring may flag by chance."""


@dataclass(frozen=True)
class Policy:
    """Rules, and the words that they are about."""

    rules: tuple[Rule, ...]
    """In the policy's order."""

    lexicon: Lexicon
    """Groups by name."""

    source: str
    """Where it was read."""

    sha256: str
    """Hexadecimal SHA-256 of the file."""


def read_policy(path: Path) -> Policy:
    """A policy from a file. Raises BadInput naming all that is wrong in it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BadInput(f"cannot read the policy {path}: {reason}", hint="check --policy") from error
    return parse_policy(data, str(path), path.parent)


def default_policy_text() -> str:
    """The policy that ships, as it is written: a start for one's own."""
    place = resources.files("milan_onnx.applications").joinpath("policies", "default.toml")
    return place.read_text(encoding="utf-8")


def default_policy() -> Policy:
    """The policy that ships."""
    return parse_policy(default_policy_text().encode(), "the default policy", Path())


def parse_policy(data: bytes, source: str, folder: Path) -> Policy:
    """A policy from TOML; ``folder``: where its lexicon lies. Raises BadInput, as `read_policy`."""
    try:
        value = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"the policy {source} is not TOML: {error}", hint="mend it") from error
    problems = [f"unknown key {key!r}" for key in value if key not in TOP_KEYS]
    if value.get("version") != VERSION or isinstance(value.get("version"), bool):
        problems.append(f"version must be {VERSION}")
    lexicon = _lexicon(value, source, folder, problems)
    rules = _rules(value.get("rule"), lexicon, problems)
    if problems:
        faults = "a fault" if len(problems) == 1 else f"{len(problems)} faults"
        raise BadInput(
            f"the policy {source} has {faults}: {'; '.join(problems)}",
            hint="docs/audit.md has the keys, and `milan-onnx audit --print-policy` an example",
        )
    return Policy(tuple(rules), lexicon, source, sha256_bytes(data))


def _lexicon(
    value: Mapping[str, Any], source: str, folder: Path, problems: list[str]
) -> dict[str, Group]:
    """The groups that ship, those of the named file, and those of the policy itself."""
    found = shipped_lexicon("audit")
    name = value.get("lexicon")
    if isinstance(name, str):
        found |= read_lexicon(folder / name)
    elif name is not None:
        problems.append("lexicon must be the name of a file")
    tables = value.get("groups", {})
    if not isinstance(tables, dict):
        problems.append("groups must be tables, such as [groups.brands]")
        return found
    for key, table in tables.items():
        try:
            found[key] = _group(key, table, source, found)
        except BadInput as error:
            problems.append(str(error))
    known = found | shipped_lexicon(RIVALS)
    for one in found.values():
        lost = [name for name in one.against if name not in known]
        problems += [f"the group {one.name} is against {name}, which is no group" for name in lost]
    return found


def _group(name: str, table: object, source: str, known: Lexicon) -> Group:
    """A group of the policy; with ``extend = true`` the known one with more words."""
    if not isinstance(table, dict) or "extend" not in table:
        return group(name, table, source)
    more = group(name, {key: table[key] for key in table if key != "extend"}, source)
    if not isinstance(table["extend"], bool):
        raise BadInput(f"extend of the group {name} must be true or false")
    if not table["extend"]:
        return more
    if name not in known:
        raise BadInput(f"there is no group {name} to extend, the groups are {', '.join(known)}")
    old = known[name]
    exceptions = (*old.exceptions, *more.exceptions)
    against = (*old.against, *more.against)
    return replace(old, words=(*old.words, *more.words), exceptions=exceptions, against=against)


def _rules(value: object, lexicon: Lexicon, problems: list[str]) -> list[Rule]:
    if not isinstance(value, list) or not value or not all(isinstance(r, dict) for r in value):
        problems.append("it has no [[rule]]")
        return []
    rules = []
    for number, table in enumerate(value, 1):
        name = table.get("name")
        where = f"rule {number} ({name})" if isinstance(name, str) else f"rule {number}"
        found, wrong = _rule(table, lexicon)
        problems += [f"{where}: {problem}" for problem in wrong]
        rules += [found] if found else []
    twice = [name for name, count in Counter(rule.name for rule in rules).items() if count > 1]
    problems += [f"two rules are called {name!r}" for name in twice]
    return rules


def _rule(table: Mapping[str, Any], lexicon: Lexicon) -> tuple[Rule | None, list[str]]:
    """A rule, or what is wrong with it."""
    limits = CONCEPT_LIMITS if "groups" in table else LABEL_LIMITS
    readers = _COMMON | {key: READERS[key] for key in limits}
    readers |= _CONCEPT if "groups" in table else {}
    problems, read = [], {}
    for key, value in table.items():
        try:
            read[key] = _reader(key, readers, "groups" in table)(value)
        except ValueError as error:
            problems.append(str(error))
    unknown = [name for name in read.get("groups", ()) if name not in lexicon]
    problems += [f"no group {name!r}, the groups are {', '.join(lexicon)}" for name in unknown]
    problems += [] if "name" in table else ["it has no name"]
    if not any(key in table for key in limits):
        problems.append(f"it has no limit, of {', '.join(limits)}")
    if problems:
        return None, problems
    allowed = {key: read.pop(key) for key in limits if key in read}
    return Rule(limits=allowed, **read), []


def _reader(
    key: str, readers: Mapping[str, Callable[[object], Any]], concepts: bool
) -> Callable[[object], Any]:
    """What reads the value of a key. Raises ValueError for a key that is not of such a rule."""
    if key in readers:
        return lambda value: _named(key, readers[key], value)
    if key in READERS or key in _CONCEPT:
        kind = "groups" if concepts else "no groups"
        raise ValueError(f"{key} is nothing for a rule with {kind}")
    raise ValueError(f"unknown key {key!r}, the keys are {', '.join(readers)}")


def _named(key: str, read: Callable[[object], Any], value: object) -> Any:
    try:
        return read(value)
    except ValueError as error:
        raise ValueError(f"{key} must be {error}") from error


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise ValueError('a list of names, such as ["faces"]')
    return tuple(dict.fromkeys(value))


def _look(value: object) -> tuple[Look, ...]:
    names = value if isinstance(value, list) else []
    if not names or not all(name in LOOKS for name in names):
        raise ValueError(f"a list of {', '.join(LOOKS)}")
    return tuple(look for look in LOOKS if look in names)


def _severity(value: object) -> Severity:
    for severity in SEVERITIES:
        if value == severity:
            return severity
    raise ValueError(f"one of {', '.join(SEVERITIES)}")


def _number(value: object) -> float:
    """A number that is one: TOML has nan and inf too."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("a number")
    return float(value)


def _share(value: object) -> float:
    """A share: 0.02 or "2%"."""
    share = -1.0
    try:
        if isinstance(value, str):
            share = _number(float(value.removesuffix("%"))) / 100 if value.endswith("%") else -1.0
        else:
            share = _number(value)
    except ValueError:
        pass
    if not 0 <= share <= 1:
        raise ValueError('a share, such as "2%" or 0.02')
    return share


def _level(value: object) -> float:
    share = _share(value)
    if not 0 < share < 1:
        raise ValueError('a share between 0 and 1, such as "1%"')
    return share


def _count(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("a whole number of units")
    return value


def _least(value: object) -> float:
    number = _number(value)
    if not -1 <= number <= 1:
        raise ValueError("a correlation, -1 to 1")
    return number


READERS: dict[str, Callable[[object], Any]] = {
    "max_units": _count,
    "max_share": _share,
    "max_importance": _number,
    "max_increase": _share,
    "max_abstained": _share,
    "max_dead": _share,
    "min_correlation": _least,
}
_COMMON: dict[str, Callable[[object], Any]] = {
    "name": _text,
    "layers": _texts,
    "severity": _severity,
}
_CONCEPT: dict[str, Callable[[object], Any]] = {
    "groups": _texts,
    "look": _look,
    "min_validity": _least,
    "false_alarms": _level,
}
