"""The process that lists a model's layers: ``python -m ...jobs.looking LIMITS MODEL N``.

N: nodes that a model may have. A line a layer: {"type":"layer","tensor":"…","module":null,…}.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from milan_onnx.serve.jobs.telling import Teller, clipped
from milan_onnx.serve.jobs.worker import check_model, confined


def main() -> None:
    """Tell the layers."""
    confined(lambda teller: look(Path(sys.argv[2]), int(sys.argv[3]), teller))


def look(model: Path, max_nodes: int, teller: Teller) -> dict[str, Any]:
    """Tell each layer of a model; returns how many there are."""
    from milan_onnx.subject import list_layers, load

    check_model(model, uploaded=False, max_nodes=max_nodes)
    found = list_layers(load(model))
    for layer in found:
        teller.tell(
            "layer",
            tensor=clipped(layer.tensor),
            module=None if layer.module is None else clipped(layer.module),
            op=clipped(layer.op),
            units=layer.units,
            shape=[str(size) if size is not None else "?" for size in layer.shape],
        )
    return {"layers": len(found)}


if __name__ == "__main__":
    main()
