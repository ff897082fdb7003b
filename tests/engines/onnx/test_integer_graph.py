"""Quantized graphs that TensorRT does or does not support."""

from __future__ import annotations

from pathlib import Path

import cv2
import onnx
import pytest
from onnx import TensorProto, helper
from realtime_ssd_engines.onnx.integer_graph import check_integers
from realtime_ssd_engines.onnx.quantize import quantize
from realtime_ssd_engines.tensorrt.engine_builder import EngineOptions, get_or_build_engine
from realtime_ssd_engines.tensorrt.toolchain import RtxToolchain

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.spec import read_spec
from tests.tiny import bright_cell
from tests.training.importers.tflite_builder import tiny_ssd


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for cell in range(4):
        cv2.imwrite(str(folder / f"{cell}.png"), bright_cell((cell, cell)))
    return folder


def quantized(model: Path, photos: Path, *, symmetric: bool) -> Path:
    output = model.with_name(f"symmetric-{symmetric}.onnx")
    quantize(model, output, photos, symmetric=symmetric)
    return output


def tflite_int8(folder: Path) -> Path:
    from realtime_ssd_training.importers import ImportOptions, import_model

    (folder / "int8.tflite").write_bytes(tiny_ssd("int8"))
    output = folder / "int8.onnx"
    import_model(folder / "int8.tflite", output, ImportOptions(keep_quantized=True))
    return output


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("kind", ["onnxruntime", "tflite"])
def test_zero_points_are_refused_before_a_build(
    model: Path, photos: Path, tmp_path: Path, kind: str, precision: str
) -> None:
    path = tflite_int8(tmp_path) if kind == "tflite" else quantized(model, photos, symmetric=False)
    options = EngineOptions(precision, cache=tmp_path / "c", calibration=photos)
    with pytest.raises(ModelError, match=r"onnx' has .*, which TensorRT does not support; ") as e:
        get_or_build_engine(path, read_spec(path), options, toolchain=RtxToolchain(["8.9"]))
    assert str(path) in str(e.value)
    assert not (tmp_path / "c").exists()


def test_symmetric_layers_are_built_as_they_are(model: Path, photos: Path) -> None:
    graph = onnx.load(str(quantized(model, photos, symmetric=True))).graph
    check_integers(graph, "m", "fp32")
    for precision in ("fp16", "int8"):
        with pytest.raises(ModelError, match="'m' is quantized already; set `precision` to fp32"):
            check_integers(graph, "m", precision)


@pytest.mark.usefixtures("needs_rtx")
def test_the_real_builder_agrees(model: Path, photos: Path, tmp_path: Path) -> None:
    """What is accepted is built, and what is refused would be refused by the builder."""
    from realtime_ssd_engines.tensorrt import compat

    def parses(path: Path) -> bool:
        _, network, _, messages = compat.create_builder(0, "rtx", ["8.9"])
        try:
            compat.parse_onnx(network, messages, str(path), "rtx")
        except ModelError:
            return False
        return True

    path = quantized(model, photos, symmetric=True)
    options = EngineOptions("fp32", cache=tmp_path / "c")
    toolchain = RtxToolchain(["8.9"])
    assert get_or_build_engine(path, read_spec(path), options, toolchain=toolchain).plan
    assert not parses(quantized(model, photos, symmetric=False))
    assert not parses(tflite_int8(tmp_path))


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (helper.make_node("QLinearConv", list("abcdefgh"), ["y"]), r"integer layers \(QLinear"),
        (helper.make_node("DynamicQuantizeLinear", ["x"], list("abc")), "integer layers"),
        (helper.make_node("QuantizeLinear", ["x", "s"], ["y"]), "unsigned type"),
        (helper.make_node("QuantizeLinear", ["x", "s", "computed"], ["y"]), "zero points"),
        (helper.make_node("DequantizeLinear", ["bias", "s"], ["y"]), "quantized biases"),
    ],
)
def test_further_integer_layers_are_refused(node: onnx.NodeProto, reason: str) -> None:
    bias = helper.make_tensor("bias", TensorProto.INT32, [1], [3])
    graph = helper.make_graph([node], "g", [], [], [bias])
    with pytest.raises(ModelError, match=reason):
        check_integers(graph, "m", "fp32")
