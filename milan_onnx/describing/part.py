"""What was counted of a part of the photos: the state of a scan, in memory and in a file.

Parts of one listing merge to what one pass over all of them counts, to the last bit.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from milan_onnx.errors import RunError
from milan_onnx.exemplars import Scan
from milan_onnx.exemplars.state import Arrays, fitting, within
from milan_onnx.exemplars.state import part as inner
from milan_onnx.files import atomic_file
from milan_onnx.probe import Checksum, Converted, Skipped

FACTS = "facts"
PHOTOS = "photos"
SCAN = "scan"


@dataclass
class Met:
    """Photos that were met."""

    usable: int = 0
    """How many could be used."""

    photos: Checksum = field(default_factory=Checksum)
    """Which they were."""

    skipped: list[Skipped] = field(default_factory=list)
    """Those that could not be used, by id."""

    converted: list[Converted] = field(default_factory=list)
    """Those that were not used as they were, by id."""

    def merge(self, other: Met) -> None:
        """Count those of another part."""
        self.usable += other.usable
        self.photos.merge(other.photos)
        self.skipped = sorted([*self.skipped, *other.skipped], key=lambda s: s.id)
        self.converted = sorted([*self.converted, *other.converted], key=lambda c: c.id)


@dataclass
class Part:
    """What was counted of the photos from ``begin`` to ``done``."""

    begin: int
    """Place in the listing of its first photo."""

    done: int
    """Place of the first photo that is not counted."""

    scan: Scan
    """The statistics."""

    met: Met = field(default_factory=Met)
    """Which photos they are of."""

    def merge(self, other: Part) -> None:
        """Count what the next part counted. Raises ValueError where it does not follow this one,
        or is of other layers or options."""
        if other.begin != self.done:
            raise ValueError(f"photos {self.done} to {other.begin} are in no part")
        self.scan.merge(other.scan)
        self.met.merge(other.met)
        self.done = other.done

    def state(self) -> Arrays:
        """All of it as arrays."""
        facts = {
            "begin": self.begin,
            "done": self.done,
            "usable": self.met.usable,
            "skipped": [asdict(skipped) for skipped in self.met.skipped],
            "converted": [asdict(converted) for converted in self.met.converted],
        }
        text = json.dumps(facts, sort_keys=True).encode()
        own: Arrays = {FACTS: np.frombuffer(text, np.uint8), PHOTOS: self.met.photos.lanes}
        return own | within(SCAN, self.scan.state())

    @staticmethod
    def of(state: Mapping[str, Any], scan: Scan) -> Part:
        """The part that had this state; ``scan``: an empty one of its layers and options.

        Raises ValueError (or KeyError, TypeError) where it does not fit.
        """
        facts = json.loads(bytes(state[FACTS]))
        scan.load(inner(SCAN, state))
        met = Met(
            int(facts["usable"]),
            Checksum(fitting(state, PHOTOS, Checksum().lanes)),
            [Skipped(**value) for value in facts["skipped"]],
            [Converted(**value) for value in facts["converted"]],
        )
        return Part(int(facts["begin"]), int(facts["done"]), scan, met)


def save_part(path: Path, part: Part, more: Mapping[str, Any]) -> None:
    """Write a part to a file, with more facts. Raises OutputUnwritable."""
    facts = np.frombuffer(json.dumps(more, sort_keys=True).encode(), np.uint8)
    arrays: dict[str, Any] = {"more": facts, **part.state()}
    with atomic_file(path) as file:
        np.savez(file, **arrays)


def load_part(path: Path, scan: Scan) -> tuple[Part, Any]:
    """Read a part and its facts; ``scan``: an empty one of its layers and options.

    Raises RunError where it is missing, damaged, or of another job.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Part.of(arrays, scan), json.loads(bytes(arrays["more"]))
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise RunError(f"{path} is damaged: {error}", hint="scan these photos again") from error
