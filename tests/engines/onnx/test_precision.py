"""Conversion of ONNX graphs to FP16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from realtime_ssd_engines.onnx.precision import to_fp16

from tests.tiny import tiny_model


def make_model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def test_scales_of_resize_stay_fp32() -> None:
    scales = np.array([1, 1, 2, 2], np.float32)
    resize = helper.make_node("Resize", ["x", "", "scales"], ["y"])
    converted = to_fp16(make_model([resize], {"scales": scales}), keep_io=False)
    dtypes = {item.name: item.data_type for item in converted.graph.initializer}
    assert dtypes == {"scales": TensorProto.FLOAT}


def test_sums_of_squares_and_their_normalization_stay_fp32() -> None:
    """The pattern is L2Norm: x / sqrt(sum(x²))."""
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["squares"]),
        helper.make_node("ReduceSum", ["squares"], ["sum"]),
        helper.make_node("Sqrt", ["sum"], ["norm"]),
        helper.make_node("Div", ["x", "norm"], ["normalized"]),
        helper.make_node("Relu", ["normalized"], ["y"]),
    ]
    converted = onnx.shape_inference.infer_shapes(to_fp16(make_model(nodes, {}), keep_io=False))
    dtypes = {v.name: v.type.tensor_type.elem_type for v in converted.graph.value_info}
    for name in ("squares", "sum", "norm", "normalized"):
        assert dtypes[name] == TensorProto.FLOAT
    assert converted.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT16


def test_fp16_inputs_and_outputs_need_no_casts(tmp_path: Path) -> None:
    model = onnx.load(str(tiny_model(tmp_path / "tiny.onnx")))
    with_fp16_io, with_fp32_io = to_fp16(model, keep_io=False), to_fp16(model)
    assert [node.op_type for node in with_fp16_io.graph.node].count("Cast") == 0
    assert [node.op_type for node in with_fp32_io.graph.node].count("Cast") == 3


def test_casts_to_fp32_become_casts_to_fp16() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Cast", ["shape"], ["size"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["size"], ["y"], keepdims=0),
    ]
    converted = to_fp16(make_model(nodes, {}), keep_io=False)
    (cast,) = (node for node in converted.graph.node if node.op_type == "Cast")
    assert cast.attribute[0].i == TensorProto.FLOAT16


def test_weights_beyond_the_fp16_range_are_clipped() -> None:
    weights = np.array([1e6, -1e6, 1.0], np.float32).reshape(1, 3, 1, 1)
    add = helper.make_node("Add", ["x", "w"], ["y"])
    converted = to_fp16(make_model([add], {"w": weights}), keep_io=False)
    (values,) = (numpy_helper.to_array(item) for item in converted.graph.initializer)
    assert values.ravel().tolist() == [65504.0, -65504.0, 1.0]
