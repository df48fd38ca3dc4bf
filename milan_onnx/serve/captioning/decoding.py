"""A request's files, decoded in a few threads: how many images are in memory whole is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
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
T = TypeVar("T")


class Decoder:
    """Makes regions of files."""

    def __init__(self, threads: int, side: int, max_pixels: int, fade: bool, cache: int) -> None:
        """``side`` of the encoder; ``fade``: see `exemplar_masks`; ``cache``: bytes of images."""
        self._pictures: Recent[Picture] = Recent(cache)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="milan-decode")
        self._side, self._max_pixels, self._fade = side, max_pixels, fade

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def units(self, sending: Sending[F], wish: Wish, request: Hashable) -> list[Unit]:
        """The units of a request. Raises BadInput naming the file that cannot be used."""
        wanted = [exemplar for unit in sending.form.units for exemplar in unit.exemplars]
        images = dict.fromkeys(exemplar.image for exemplar in wanted)
        masks = dict.fromkeys(exemplar.mask for exemplar in wanted if exemplar.mask is not None)
        read = [self._later(self._picture, sending, name) for name in images]
        cut = [self._later(self._stencil, sending, name) for name in masks]
        try:
            pictures = dict(zip(images, await asyncio.gather(*read), strict=True))
            stencils = dict(zip(masks, await asyncio.gather(*cut), strict=True))
        finally:
            for future in read:
                future.cancel()
            for stencil in cut:
                stencil.cancel()

        def made(one: ExemplarSent) -> Region:
            stencil = None if one.mask is None else stencils[one.mask]
            return region(pictures[one.image], stencil, one.image, one.mask)

        return [
            Unit(tuple(made(one) for one in unit.exemplars), wish.task, request)
            for unit in sending.form.units
        ]

    def _later(
        self, work: Callable[[Sending[F], str], T], sending: Sending[F], name: str
    ) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._pool, work, sending, name)

    def _picture(self, sending: Sending[F], name: str) -> Picture:
        data = content(name, sending.files[name])
        found = self._pictures.get(key_of(data))
        if found is None:
            found = read_picture(name, data, self._side, self._max_pixels)
            self._pictures.put(found.key, found)
        return found

    def _stencil(self, sending: Sending[F], name: str) -> Stencil:
        data = content(name, sending.files[name])
        return read_stencil(name, data, self._side, self._max_pixels, self._fade)
