"""Exemplar sets for requests, and an app that answers them without a socket."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from milan_onnx.serve.app import create_app
from milan_onnx.serve.settings import ServeSettings

Pixels = NDArray[np.uint8]
HOME = "http://127.0.0.1:8080"


def png(pixels: Pixels) -> bytes:
    """Pixels (H, W, 3), or a mask bool (H, W), as a file."""
    file = io.BytesIO()
    shown = pixels if pixels.dtype == np.uint8 else pixels.astype(np.uint8) * 255
    Image.fromarray(shown).save(file, "PNG")
    return file.getvalue()


def photo(seed: int, height: int = 40, width: int = 40) -> Pixels:
    """Coarse blocks of colour."""
    blocks = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    image = Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)


def blob(seed: int, height: int = 40, width: int = 40) -> NDArray[np.bool_]:
    """A rectangle within."""
    rng, mask = np.random.default_rng(seed), np.zeros((height, width), np.bool_)
    top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
    mask[top : top + height // 3, left : left + width // 4] = True
    return mask


def sets(units: int, k: int, seed: int = 0, photos: int = 6) -> tuple[Pixels, NDArray[np.bool_]]:
    """Images (U, K, 40, 40, 3) of so many photos, and masks (U, K, 40, 40)."""
    rng = np.random.default_rng(seed)
    shown = np.stack([photo(100 * seed + i) for i in range(photos)])
    which = rng.integers(0, photos, (units, k))
    masks = [[blob(1000 * seed + u * k + e) for e in range(k)] for u in range(units)]
    return shown[which], np.array(masks)


def body(images: Pixels, masks: NDArray[np.bool_] | None, **more: Any) -> dict[str, Any]:
    """The JSON of a request for exemplar sets as of `sets`; equal images are sent once."""
    files: dict[str, bytes] = {}
    units: list[dict[str, Any]] = []
    for u, row in enumerate(images):
        units.append({"exemplars": []})
        for e, pixels in enumerate(row):
            data = png(pixels)
            name = next((n for n, held in files.items() if held == data), f"{u}-{e}.png")
            files[name] = data
            one = {"image": name}
            if masks is not None:
                one["mask"] = f"{u}-{e}-mask.png"
                files[one["mask"]] = png(masks[u, e])
            units[-1]["exemplars"].append(one)
    coded = {name: base64.b64encode(data).decode() for name, data in files.items()}
    return {"files": coded, "units": units, **more}


def form(sent: dict[str, Any]) -> list[tuple[str, tuple[str | None, bytes, str]]]:
    """The same as the parts of a form."""
    asked = json.dumps({key: value for key, value in sent.items() if key != "files"})
    parts: list[tuple[str, tuple[str | None, bytes, str]]] = [
        ("request", (None, asked.encode(), "application/json"))
    ]
    for name, text in sent["files"].items():
        parts.append(("files", (name, base64.b64decode(text), "application/octet-stream")))
    return parts


@asynccontextmanager
async def service(bundle: Path, **given: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a running app that is ready."""
    app = create_app(ServeSettings(**{"bundle": bundle, "threads": 2, **given}))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url=HOME, timeout=60) as client,
    ):
        async with asyncio.timeout(120):
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.01)
        yield client
