"""A request's files, decoded in a few threads: how many images are in memory whole is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from milan_onnx.serve.captioning.engine import Region, Unit
from milan_onnx.serve.captioning.messages import Asked, ExemplarSent
from milan_onnx.serve.captioning.reading import Sending, content
from milan_onnx.serve.captioning.recent import Recent
from milan_onnx.serve.captioning.regions import (
    Picture,
    Stencil,
    key_of,
    read_picture,
    read_stencil,
    region,
)
from milan_onnx.serve.captioning.tasks import Wish

F = TypeVar("F", bound=Asked)
File = tuple[bool, str]
"""Whether it is a mask, and its name: one file may be both."""
Read = Mapping[File, Picture | Stencil]
LEAST, MOST = 4, 8
"""Files that one thread reads at a time."""


class Decoder:
    """Makes regions of files."""

    def __init__(self, threads: int, side: int, max_pixels: int, fade: bool, cache: int) -> None:
        """``side`` of the encoder; ``fade``: see `exemplar_masks`; ``cache``: bytes of images."""
        self._pictures: Recent[Picture] = Recent(cache)
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="milan-decode")
        self._side, self._max_pixels, self._fade = side, max_pixels, fade

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def units(self, sending: Sending[F], wish: Wish, request: Hashable) -> list[Unit]:
        """The units of a request. Raises BadInput naming the file that cannot be used."""
        wanted = [exemplar for unit in sending.form.units for exemplar in unit.exemplars]
        names = [(False, exemplar.image) for exemplar in wanted]
        names += [(True, exemplar.mask) for exemplar in wanted if exemplar.mask is not None]
        read = await self._read_all(list(dict.fromkeys(names)), sending.files)

        def made(one: ExemplarSent) -> Region:
            picture, stencil = read[False, one.image], None
            if one.mask is not None:
                stencil = read[True, one.mask]
            assert isinstance(picture, Picture) and not isinstance(stencil, Picture)
            return region(picture, stencil, one.image, one.mask)

        return [
            Unit(tuple(made(one) for one in unit.exemplars), wish.task, request)
            for unit in sending.form.units
        ]

    async def _read_all(self, names: Sequence[File], files: Mapping[str, bytes | str]) -> Read:
        """All files, in parts that are small enough for who goes away to be forgotten soon."""
        loop = asyncio.get_running_loop()
        size = min(MOST, max(LEAST, -(-len(names) // self._threads)))
        parts = [names[start : start + size] for start in range(0, len(names), size)]
        waiting = [loop.run_in_executor(self._pool, self._read, part, files) for part in parts]
        try:
            return {name: made for part in await asyncio.gather(*waiting) for name, made in part}
        finally:
            for future in waiting:
                future.cancel()

    def _read(
        self, names: Sequence[File], files: Mapping[str, bytes | str]
    ) -> list[tuple[File, Picture | Stencil]]:
        return [
            ((is_mask, name), (self._stencil if is_mask else self._picture)(name, files[name]))
            for is_mask, name in names
        ]

    def _picture(self, name: str, value: bytes | str) -> Picture:
        data = content(name, value)
        found = self._pictures.get(key_of(data))
        if found is None:
            found = read_picture(name, data, self._side, self._max_pixels)
            self._pictures.put(found.key, found)
        return found

    def _stencil(self, name: str, value: bytes | str) -> Stencil:
        data = content(name, value)
        return read_stencil(name, data, self._side, self._max_pixels, self._fade)
