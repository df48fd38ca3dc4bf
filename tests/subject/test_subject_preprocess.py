"""Preprocessing: which source wins, and every form that the sources come in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from subject_graphs import Dims, image, model, written

from milan_onnx.errors import SubjectError, UsageError
from milan_onnx.geometry import Geometry
from milan_onnx.subject import Subject, choose_preprocessing, load

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def subject(
    folder: Path,
    dims: Dims | None = None,
    elem: int = TensorProto.FLOAT,
    config: Any = None,
    **metadata: str,
) -> Subject:
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=1)]
    made = model(nodes, inputs=[image(dims or ["N", 3, 224, 224], elem)], **metadata)
    if config is not None:
        text = config if isinstance(config, str) else json.dumps(config)
        (folder / "preprocessor_config.json").write_text(text)
    return load(written(folder, made))


def geometry(folder: Path, config: Any, dims: Dims | None = None) -> Geometry:
    return choose_preprocessing(subject(folder, dims, config=config)).value.geometry


@pytest.mark.parametrize(
    ("dims", "crop", "resize"),
    [
        (["N", 3, 224, 224], (224, 224), 256),
        (["N", 3, 299, 299], (299, 299), 342),
        (["N", 32, 32, 3], (32, 32), 32),
        (["N", 3, 64, 64], (64, 64), 64),
        (["N", 3, 96, 128], (96, 128), 146),
        (["N", 3, "H", "W"], (224, 224), 256),
    ],
)
def test_from_the_shape(tmp_path: Path, dims: Dims, crop: tuple[int, int], resize: int) -> None:
    chosen = choose_preprocessing(subject(tmp_path, dims))
    assert chosen.value.geometry == Geometry(crop, resize)
    assert (chosen.value.mean, chosen.value.std) == IMAGENET
    assert chosen.value.rescale == 1 / 255
    assert "as ImageNet models take it" in chosen.reason
    assert ("leaves height and width free" in chosen.reason) == ("H" in dims)


def test_uint8_input_takes_pixels(tmp_path: Path) -> None:
    chosen = choose_preprocessing(subject(tmp_path, elem=TensorProto.UINT8))
    assert (chosen.value.mean[0], chosen.value.std[0], chosen.value.rescale) == (0, 1, 1)
    assert "pixels as they are" in chosen.reason


def test_grey_input(tmp_path: Path) -> None:
    value = choose_preprocessing(subject(tmp_path, ["N", 1, 28, 28])).value
    assert (value.mean[0], value.std[0], value.rescale) == (0, 1, 1 / 255)


VIT = {
    "do_resize": True,
    "size": {"height": 224, "width": 224},
    "resample": 3,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.25, 0.25, 0.25],
}


def test_a_hugging_face_file(tmp_path: Path) -> None:
    chosen = choose_preprocessing(subject(tmp_path, config=VIT))
    assert chosen.value.geometry == Geometry((224, 224), (224, 224), "bicubic")
    assert (chosen.value.mean, chosen.value.std) == ((0.5,) * 3, (0.25,) * 3)
    assert chosen.value.rescale == 1 / 255
    assert chosen.reason == (
        "preprocessor_config.json gave crop, interpolation, resize, rescale, mean and std"
    )


@pytest.mark.parametrize(
    ("config", "resize"),
    [
        ({"size": 224}, (224, 224)),
        ({"size": 256, "do_center_crop": True, "crop_size": 224}, 256),
        ({"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": 224}, 256),
        ({"size": {"shortest_edge": 224}}, 224),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, 256),
        ({"size": [224, 224]}, (224, 224)),
        (
            {
                "size": {"height": 256, "width": 256},
                "do_center_crop": True,
                "crop_size": {"height": 224, "width": 224},
            },
            (256, 256),
        ),
        ({"do_resize": False, "do_center_crop": True, "crop_size": 224}, None),
        ({}, 256),
    ],
)
def test_size_forms(tmp_path: Path, config: Any, resize: Any) -> None:
    assert geometry(tmp_path, config) == Geometry((224, 224), resize)


def test_a_large_convnext_is_not_cropped(tmp_path: Path) -> None:
    config = {"size": {"shortest_edge": 384}, "crop_pct": 0.95}
    assert geometry(tmp_path, config, ["N", 3, 384, 384]) == Geometry((384, 384), (384, 384))


def test_switches(tmp_path: Path) -> None:
    config = {**VIT, "do_rescale": False, "do_normalize": False, "do_flip_channel_order": True}
    value = choose_preprocessing(subject(tmp_path, config=config)).value
    assert (value.mean, value.std, value.rescale) == ((0, 0, 0), (1, 1, 1), 1)
    assert value.channel_order == "BGR"


def test_the_order_of_sources(tmp_path: Path) -> None:
    own = json.dumps({"image_mean": [0.1, 0.1, 0.1], "image_std": 0.2, "rescale_factor": 0.5})
    made = subject(
        tmp_path,
        config={"image_mean": [0.3, 0.3, 0.3]},
        milan_onnx__preprocessing=own,
        std="0.9",
    )
    chosen = choose_preprocessing(made, interpolation="bicubic", crop=224)
    assert chosen.value.geometry == Geometry((224, 224), 256, "bicubic")
    assert chosen.value.mean == (0.3,) * 3
    assert chosen.value.std == (0.2,) * 3
    assert chosen.value.rescale == 1 / 255
    assert chosen.reason == (
        "--crop gave crop and resize; --interpolation gave interpolation; "
        "preprocessor_config.json gave rescale and mean; "
        "the model's metadata (milan_onnx.preprocessing) gave std"
    )


def test_plain_metadata(tmp_path: Path) -> None:
    made = subject(
        tmp_path, ["N", 3, "H", "W"], mean="123.7, 116.3, 103.5", std="[58.4]", image_size="256"
    )
    chosen = choose_preprocessing(made)
    assert chosen.value.geometry == Geometry((256, 256), 293)
    assert chosen.value.mean == (123.7, 116.3, 103.5)
    assert chosen.value.std == (58.4,) * 3
    assert chosen.value.rescale == 1.0
    assert "a mean in pixel values gave rescale" in chosen.reason


def test_no_resize(tmp_path: Path) -> None:
    assert choose_preprocessing(subject(tmp_path), resize=0).value.geometry.resize is None


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[1]",
        {"size": {"longest_edge": 3}},
        {"size": "big"},
        {"image_mean": ["a", "b", "c"]},
        {"image_std": [0, 0, 0]},
        {"rescale_factor": "x", "do_rescale": True},
    ],
)
def test_bad_files(tmp_path: Path, config: Any) -> None:
    with pytest.raises(SubjectError, match="preprocessor_config"):
        choose_preprocessing(subject(tmp_path, config=config))


def test_bad_metadata(tmp_path: Path) -> None:
    with pytest.raises(SubjectError, match="mean=grey"):
        choose_preprocessing(subject(tmp_path, mean="grey"))


def test_a_size_that_the_model_does_not_take(tmp_path: Path) -> None:
    with pytest.raises(SubjectError, match="asks for 384x384, but the model takes 224x224"):
        geometry(tmp_path, {"size": 384})
    with pytest.raises(UsageError, match="--crop asks for 100x100"):
        choose_preprocessing(subject(tmp_path), crop=100)


@pytest.mark.parametrize(
    "options",
    [
        {"interpolation": "magic"},
        {"channel_order": "GRB"},
        {"crop": -1},
        {"mean": (1, 2)},
        {"std": 0},
        {"mean": "a"},
    ],
)
def test_bad_arguments(tmp_path: Path, options: Any) -> None:
    with pytest.raises(UsageError):
        choose_preprocessing(subject(tmp_path), **options)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 500) | st.floats(allow_nan=False) | st.text("ab"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["shortest_edge", "height", "width"]), inner)
    ),
    max_leaves=5,
)
KEYS = ("size", "crop_size", "do_resize", "do_center_crop", "do_rescale", "do_normalize",
        "rescale_factor", "image_mean", "image_std", "resample", "crop_pct")  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(config=st.dictionaries(st.sampled_from(KEYS), JSON))
def test_any_json_is_used_or_refused(tmp_path: Path, config: Any) -> None:
    made = subject(tmp_path, ["N", 3, "H", "W"], config=config)
    try:
        value = choose_preprocessing(made).value
    except SubjectError:
        return
    assert min(value.geometry.crop) > 0
    assert min(value.std) > 0
