"""Finds graphs with 8-bit integers that TensorRT does not support, before an engine is built."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from realtime_ssd.core.errors import ModelError

__all__ = ["check_integers"]

_QDQ = ("QuantizeLinear", "DequantizeLinear")
_INTEGER_OPS = {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QLinearAdd"}
_INTEGER_OPS |= {"DynamicQuantizeLinear"}


def check_integers(graph: onnx.GraphProto, name: str, precision: str) -> None:
    """Check that TensorRT supports the quantized layers of a graph, if it has any.

    Args:
        graph: Graph of the model.
        name: File of the model, for messages.
        precision: Requested precision of the engine.

    Raises:
        ModelError: If activations have zero points or an unsigned type, as in TFLite and ONNX
            Runtime models, or the precision would quantize or convert quantized layers again.
    """
    problem = _unsupported(graph)
    if problem:
        raise ModelError(
            f"'{name}' has {problem}, which TensorRT does not support; build the engine from the "
            "model without 8-bit integers and set `precision` to int8, or set `backend` to "
            "onnxruntime"
        )
    if precision != "fp32" and any(node.op_type in _QDQ for node in graph.node):
        raise ModelError(
            f"'{name}' is quantized already; set `precision` to fp32, which keeps its 8-bit layers"
        )


def _unsupported(graph: onnx.GraphProto) -> str:
    """Return what TensorRT does not support in the quantized layers of a graph, or ""."""
    constants = {item.name: item for item in graph.initializer}
    constants |= {
        node.output[0]: attribute.t
        for node in graph.node
        for attribute in node.attribute
        if node.op_type == "Constant" and attribute.name == "value"
    }
    for node in graph.node:
        if node.op_type in _INTEGER_OPS:
            return f"integer layers ({node.op_type})"
        if node.op_type not in _QDQ:
            continue
        source = constants.get(node.input[0])
        if source is not None and source.data_type == TensorProto.INT32:
            return "quantized biases"
        if len(node.input) < 3:  # without a zero point, the type is uint8 or that of the input
            if node.op_type == "QuantizeLinear":
                return "8-bit layers of an unsigned type"
            continue
        zero_point = constants.get(node.input[2])
        if zero_point is None or np.any(numpy_helper.to_array(zero_point)):
            return "8-bit layers with zero points"
        if zero_point.data_type == TensorProto.UINT8:
            return "8-bit layers of an unsigned type"
    return ""
