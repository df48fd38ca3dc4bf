"""Reading: every way in which a file can be unusable has its sentence."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, load_model_from_string
from subject_graphs import conv_model, image, ints, model, weight, written

from milan_onnx.errors import SubjectError
from milan_onnx.subject import choose_preprocessing, list_layers, load, tap


def test_import_is_light() -> None:
    code = (
        "import sys, milan_onnx.subject; print([m for m in ('onnx', 'torch') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_a_good_model(tmp_path: Path) -> None:
    path = written(tmp_path, conv_model(mean="0.5"))
    subject = load(path)
    assert subject.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert subject.input.name == "x"
    assert (subject.input.layout, subject.input.channels, subject.input.dtype) == (
        "NCHW",
        3,
        "float32",
    )
    assert (subject.input.height, subject.input.width, subject.input.batch) == (8, 8, None)
    assert subject.external_folder is None
    assert subject.metadata == {"mean": "0.5"}


def fails(path: Path, *words: str, **options: object) -> None:
    with pytest.raises(SubjectError) as caught:
        load(path, **options)  # type: ignore[arg-type]
    for word in words:
        assert word in str(caught.value)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    fails(tmp_path / "absent.onnx", "no file")


def test_folder(tmp_path: Path) -> None:
    written(tmp_path, conv_model(), "inside.onnx")
    fails(tmp_path, "is a folder", "inside.onnx")


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "empty"),
        (b"<html>not found</html>", "not"),
        (b"PK\x03\x04" + bytes(100), "torch.onnx.export"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (bytes(64), "not"),
    ],
)
def test_not_onnx(tmp_path: Path, data: bytes, word: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    fails(path, word)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(share=st.floats(0, 0.999))
def test_truncated_anywhere(tmp_path: Path, share: float) -> None:
    data = conv_model().SerializeToString()
    path = tmp_path / "cut.onnx"
    path.write_bytes(data[: int(len(data) * share)])
    fails(path)


def test_no_nodes(tmp_path: Path) -> None:
    made = conv_model()
    del made.graph.node[:]
    fails(written(tmp_path, made), "no nodes")


@pytest.mark.parametrize(("opset", "ir"), [(999, 8), (17, 999)])
def test_too_new(tmp_path: Path, opset: int, ir: int) -> None:
    made = conv_model()
    made.opset_import[0].version, made.ir_version = opset, ir
    fails(written(tmp_path, made), "999", "upgrade")


def two_inputs(dims: list[int | str | None]) -> object:
    nodes = [helper.make_node("Add", ["x", "t"], ["y"])]
    return model(nodes, inputs=[image(), helper.make_tensor_value_info("t", 1, dims)])


def test_a_second_input_must_be_fixed(tmp_path: Path) -> None:
    path = written(tmp_path, two_inputs([1]))  # type: ignore[arg-type]
    fails(path, "besides the image x", "--input t=0")
    fails(path, "no input q", "x, t", fixed_inputs={"t": 1, "q": 2})
    fails(path, "--input t=cat", fixed_inputs={"t": "cat"})


def test_a_fixed_input_is_a_constant(tmp_path: Path, run: object, frames: object) -> None:
    path = written(tmp_path, two_inputs([1]))  # type: ignore[arg-type]
    subject = load(path, fixed_inputs={"t": 2})
    assert subject.fixed["t"].dtype == np.float32
    preprocessing = choose_preprocessing(subject, mean=0, std=1, rescale=1).value
    images = frames(2, 8)  # type: ignore[operator]
    (value,) = run(tap(subject, list_layers(subject), preprocessing), images)  # type: ignore[operator]
    np.testing.assert_array_equal(value, images.transpose(0, 3, 1, 2) + np.float32(2))


def test_an_unread_input_is_ignored(tmp_path: Path) -> None:
    made = conv_model()
    made.graph.input.append(helper.make_tensor_value_info("unread", 1, [1]))
    assert load(written(tmp_path, made)).input.name == "x"


def test_two_images(tmp_path: Path) -> None:
    path = written(tmp_path, two_inputs(["N", 3, 8, 8]))  # type: ignore[arg-type]
    fails(path, "several inputs could be the image: x, t")
    assert load(path, fixed_inputs={"t": 0}).input.name == "x"


def test_no_image(tmp_path: Path) -> None:
    made = model([helper.make_node("Relu", ["x"], ["y"])], inputs=[image(["N", 16])])
    fails(written(tmp_path, made), "no image input", "x float32 (N, 16)")


def test_unsupported_dtype(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=1)]
    made = model(nodes, inputs=[image(elem=TensorProto.INT64)])
    fails(written(tmp_path, made), "int64", "float32")


def test_nhwc(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    subject = load(written(tmp_path, model(nodes, inputs=[image([1, 8, 6, 3])])))
    assert (subject.input.layout, subject.input.height, subject.input.width) == ("NHWC", 8, 6)
    assert subject.input.batch == 1


def test_unsorted_nodes(tmp_path: Path) -> None:
    made = conv_model()
    nodes = list(made.graph.node)
    del made.graph.node[:]
    made.graph.node.extend(nodes[::-1])
    with pytest.raises(SubjectError, match="before it is made"):
        list_layers(load(written(tmp_path, made)))


# --- external weights ---------------------------------------------------------------------------


def external(folder: Path, **options: object) -> Path:
    return written(
        folder,
        conv_model(),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location="weights.bin",
        size_threshold=0,
        **options,
    )


def relocated(path: Path, location: str) -> Path:
    made = load_model_from_string(path.read_bytes())
    for tensor in made.graph.initializer:
        tensor.external_data[0].value = location
    path.write_bytes(made.SerializeToString())
    return path


def test_external_weights_are_used(tmp_path: Path, run: object, frames: object) -> None:
    (tmp_path / "inline").mkdir()
    inline = load(written(tmp_path / "inline", conv_model()))
    subject = load(external(tmp_path))
    assert subject.external_folder == tmp_path
    assert subject.sha256 != inline.sha256
    assert list_layers(subject) == list_layers(inline)
    images = frames(2, 8)  # type: ignore[operator]
    values = [
        run(tap(s, list_layers(s), choose_preprocessing(s).value), images)  # type: ignore[operator]
        for s in (subject, inline)
    ]
    for one, two in zip(*values, strict=True):
        np.testing.assert_array_equal(one, two)


def test_external_hash_follows_the_weights(tmp_path: Path) -> None:
    path = external(tmp_path)
    before = load(path).sha256
    data = bytearray((tmp_path / "weights.bin").read_bytes())
    data[0] ^= 1
    (tmp_path / "weights.bin").write_bytes(data)
    assert load(path).sha256 != before


def test_external_shapes_are_read(tmp_path: Path) -> None:
    made = model([helper.make_node("Reshape", ["x", "flat"], ["y"])], [ints("flat", 0, 192)])
    options = {"save_as_external_data": True, "size_threshold": 0, "location": "weights.bin"}
    subject = load(written(tmp_path, made, **options))
    assert subject.external_folder is not None
    assert list_layers(subject)[0].shape == ("N", 192)


def test_external_missing(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "weights.bin").unlink()
    fails(path, "not there: weights.bin")


def test_external_cut_short(tmp_path: Path) -> None:
    path = external(tmp_path)
    with (tmp_path / "weights.bin").open("r+b") as file:
        file.truncate(10)
    fails(path, "shorter", "weights.bin")


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "a/../../b", "C:\\w.bin"])
def test_external_outside(tmp_path: Path, location: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(10000))
    fails(relocated(external(inside), location), "outside its folder")


def test_external_link_outside(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    path = external(inside)
    (inside / "weights.bin").replace(tmp_path / "weights.bin")
    (inside / "weights.bin").symlink_to(tmp_path / "weights.bin")
    fails(path, "outside its folder")


def test_external_weights_in_an_inner_graph(tmp_path: Path) -> None:
    tensor = weight("w", 3, 1, 1)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="absent.bin")
    nodes = [
        helper.make_node("Constant", [], ["w"], value=tensor),
        helper.make_node("Add", ["x", "w"], ["y"]),
    ]
    fails(written(tmp_path, model(nodes)), "absent.bin")


def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = written(tmp_path, conv_model())
    path.write_bytes(path.read_bytes().replace(b"act", b"\xff\xfet"))
    with pytest.raises(SubjectError, match=r"node 1 of .* has a name that is no text"):
        load(path)
