"""INT8 quantization of ONNX graphs."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from realtime_ssd_engines.onnx.quantize import quantize

from benchmarks.cpu.int8 import average_precision
from benchmarks.data import Data
from realtime_ssd.core.errors import SourceError, UsageError
from realtime_ssd.core.spec import read_spec
from tests.tiny import bright_cell, tiny_model


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for cell in range(4):
        cv2.imwrite(str(folder / f"{cell}.png"), bright_cell((cell, cell)))
    return folder


@pytest.mark.parametrize("symmetric", [True, False])
def test_weights_have_one_scale_per_channel(
    model: Path, photos: Path, tmp_path: Path, symmetric: bool
) -> None:
    output = tmp_path / "int8.onnx"
    assert quantize(model, output, photos, symmetric=symmetric) == 4
    graph = onnx.load(str(output)).graph
    values = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    assert values["w_scale"].shape == (2,)
    zero_points = [value for name, value in values.items() if name.endswith("zero_point")]
    if symmetric:
        assert not any(value.any() for value in zero_points)


def test_tensorrt_models_quantize_both_inputs_of_convolutions_but_no_bias(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "int8.onnx"
    quantize(model, output, photos)
    graph = onnx.load(str(output)).graph
    producers = {name: node for node in graph.node for name in node.output}
    dtypes = {item.name: item.data_type for item in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 2
    for node in convolutions:
        activation, weights, *bias = node.input
        assert producers[activation].op_type == producers[weights].op_type == "DequantizeLinear"
        assert not any(name in producers for name in bias)
    quantized = {node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    assert TensorProto.INT32 not in {dtypes.get(name) for name in quantized}


def test_tensorrt_models_quantize_inputs_only_and_residual_additions(
    photos: Path, tmp_path: Path
) -> None:
    """Additions of constants, ReLUs and outputs stay unquantized; nodes may have no names."""
    path = residual_model(tmp_path / "residual.onnx")
    quantize(path, tmp_path / "int8.onnx", photos)
    graph = onnx.load(str(tmp_path / "int8.onnx")).graph
    producers = {name: node.op_type for node in graph.node for name in node.output}
    consumers = [(node.op_type, name) for node in graph.node for name in node.input]
    (residual, constant) = (node for node in graph.node if node.op_type == "Add")
    assert [producers.get(name) for name in residual.input] == ["Conv", "DequantizeLinear"]
    assert "DequantizeLinear" not in [producers.get(name) for name in constant.input]
    for node in graph.node:
        if node.op_type == "Conv":
            followers = {kind for kind, name in consumers if name == node.output[0]}
            assert followers <= {"Add", "Relu", "Transpose"}


def residual_model(path: Path) -> Path:
    """Write the tiny detector with a residual block and the addition of a constant in front."""
    model = onnx.load(str(tiny_model(path)))
    graph = model.graph
    source = graph.input[0].name
    weights = numpy_helper.from_array(np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1), "eye")
    zero = numpy_helper.from_array(np.zeros((1, 3, 1, 1), np.float32), "zero")
    for node in graph.node:
        node.name = ""
        node.input[:] = ["block" if name == source else name for name in node.input]
    block = [
        helper.make_node("Conv", [source, "eye"], ["convolved"]),
        helper.make_node("Relu", ["convolved"], ["rectified"]),
        helper.make_node("Conv", ["rectified", "eye"], ["projected"]),
        helper.make_node("Add", ["projected", source], ["sum"]),
        helper.make_node("Add", ["sum", "zero"], ["block"]),
    ]
    nodes = [*block, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend([weights, zero])
    onnx.save(model, str(path))
    return path


def test_the_specification_and_the_log_level_are_preserved(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    level = logging.getLogger().level
    quantize(model, tmp_path / "int8.onnx", photos)
    assert read_spec(tmp_path / "int8.onnx") == read_spec(model)
    assert logging.getLogger().level == level


def test_a_missing_folder_raises_usage_error(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder of calibration images"):
        quantize(model, tmp_path / "int8.onnx", tmp_path / "missing")


@pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_an_unreadable_image_is_reported_and_skipped(
    model: Path, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    (photos / "0.png").write_bytes(data)
    assert quantize(model, tmp_path / "int8.onnx", photos) == 3
    assert "1 of 4 images cannot be read and were skipped" in caplog.text
    for path in photos.iterdir():
        path.write_bytes(data)
    with pytest.raises(SourceError, match="4 of 4 images cannot be read"):
        quantize(model, tmp_path / "int8.onnx", photos)


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_int8_for_tensorrt_keeps_the_average_precision(
    coco_model: Path, shared_data: Path, tmp_path: Path
) -> None:
    """The graph that TensorRT builds, in ONNX Runtime; calibrated on other photos."""
    data = Data(shared_data)
    quantize(coco_model, tmp_path / "int8.onnx", shared_data / "dali_coco61" / "images")
    fp32, int8 = (
        average_precision(path, data, ("coco_mini",))["coco_mini"]
        for path in (coco_model, tmp_path / "int8.onnx")
    )
    assert fp32 > 0.25
    assert int8 == pytest.approx(fp32, abs=0.01)
