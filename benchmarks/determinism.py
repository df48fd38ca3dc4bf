"""Do ONNX Runtime's and NumPy's matrix products give a row the same bits in any company?

    python benchmarks/determinism.py

For each shape: on one thread and on two, is the product of some rows equal, bit for bit, to those
rows of the product of all? This is why sessions run on one thread (docs/architecture.md).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

SHAPES = [(49, 1280), (12544, 16), (784, 40), (384, 1536), (1280, 1000), (512, 24)]
COUNTS = (1, 2, 3, 5, 8, 13, 16, 31, 64, 197)

Product = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]


def onnx_product(threads: int) -> Product:
    names = {"a": ["n", "k"], "b": ["k", "m"], "c": ["n", "m"]}
    infos = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in names.items()}
    node = helper.make_node("MatMul", ["a", "b"], ["c"])
    graph = helper.make_graph([node], "product", [infos["a"], infos["b"]], [infos["c"]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)

    def product(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
        result: NDArray[np.float32] = session.run(None, {"a": a, "b": b})[0]
        return result

    return product


def differing(product: Product, inner: int, columns: int) -> list[int]:
    """Row counts whose product differs from the same rows among 300."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((300, inner)).astype(np.float32)
    b = rng.standard_normal((inner, columns)).astype(np.float32)
    whole = product(a, b)
    return [n for n in COUNTS if product(a[:n], b).tobytes() != whole[:n].tobytes()]


def main() -> None:
    products = {
        "ONNX Runtime, 1 thread": onnx_product(1),
        "ONNX Runtime, 2 threads": onnx_product(2),
        "NumPy": lambda a, b: a @ b,
    }
    print(f"row counts of {COUNTS} that change a row's bits")
    for name, product in products.items():
        for inner, columns in SHAPES:
            print(f"{name:<24} {inner:>6} x {columns:<5} {differing(product, inner, columns)}")


if __name__ == "__main__":
    main()
