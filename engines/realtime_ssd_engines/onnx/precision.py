"""Mixed precision in the ONNX graph: FP16, except where FP16 would overflow or lose accuracy.

Softmax, and L2Norm with its sums and square roots, stay in FP32; all other nodes become FP16. Every
runtime executes the result in the same precision, and strongly typed TensorRT networks (the only
kind from TensorRT 11 on) take the precision from the graph alone.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from realtime_ssd.core.errors import ModelError, first_line

__all__ = ["to_fp16"]

_REDUCTIONS = {"ReduceSum", "ReduceMean", "ReduceL2", "LpNormalization"}
_FP32_OPS = {"Softmax", "LogSoftmax", "Exp", *_REDUCTIONS}
_NORM_OPS = {"Sqrt", "Clip", "Max", "Add", "Expand", "Reciprocal"}
_FIXED_TYPE_INPUTS = {"Resize": (1, 2), "Upsample": (1,)}
_FP16_MAX = float(np.finfo(np.float16).max)


def to_fp16(model: onnx.ModelProto, *, keep_io: bool = True) -> onnx.ModelProto:
    """Convert a model to FP16.

    Args:
        model: FP32 model; not modified.
        keep_io: Whether inputs and outputs stay FP32 instead of becoming FP16.

    Returns:
        The checked FP16 model with the same metadata.

    Raises:
        ModelError: If the result is not a valid model.
    """
    converted = onnx.ModelProto()
    converted.CopyFrom(model)
    _Conversion(converted, keep_io).run()
    try:
        onnx.checker.check_model(converted, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = first_line(error, "no reason given")
        raise ModelError(f"the model cannot be converted to FP16: {reason}") from error
    return converted


class _Conversion:
    """Rewrites a graph node by node and tracks which tensors are FP16 so far."""

    def __init__(self, model: onnx.ModelProto, keep_io: bool) -> None:
        self.graph, self.keep_io = model.graph, keep_io
        _fold_constants(self.graph)
        inferred = onnx.shape_inference.infer_shapes(model).graph
        values = [*inferred.value_info, *inferred.input, *inferred.output]
        self.float_tensors = {
            v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT
        }
        self.weights = {
            item.name: item
            for item in self.graph.initializer
            if item.data_type == TensorProto.FLOAT
        }
        self.fp16_tensors: set[str] = set()
        self.converted_names: dict[tuple[str, int], str] = {}
        self.nodes: list[NodeProto] = []
        self.fp32_nodes = _find_fp32_nodes(self.graph)

    def run(self) -> None:
        weights = set(self.weights)
        for value in self.graph.input:
            if value.name in self.float_tensors and value.name not in weights and not self.keep_io:
                value.type.tensor_type.elem_type = TensorProto.FLOAT16
                self.fp16_tensors.add(value.name)
        outputs = {value.name for value in self.graph.output if value.name in self.float_tensors}
        for number, node in enumerate(list(self.graph.node)):
            self._convert(node, keep_fp32=number in self.fp32_nodes)
        for value in self.graph.output:
            if value.name in outputs:
                self._restore_output(value)
        del self.graph.node[:], self.graph.value_info[:]
        self.graph.node.extend(self.nodes)
        self._drop_unused()

    def _convert(self, node: NodeProto, *, keep_fp32: bool) -> None:
        fixed = _FIXED_TYPE_INPUTS.get(node.op_type, ())
        target = TensorProto.FLOAT if keep_fp32 else TensorProto.FLOAT16
        for index, name in enumerate(node.input):
            if index in fixed or not (name in self.float_tensors or name in self.weights):
                continue
            node.input[index] = self._cast(name, target)
        float_outputs = [name for name in node.output if name in self.float_tensors]
        if node.op_type == "Cast" and float_outputs:
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                    attribute.i = target
        self.nodes.append(node)
        if not keep_fp32:
            self.fp16_tensors.update(float_outputs)

    def _cast(self, name: str, dtype: int) -> str:
        """Return the name of a tensor in a data type; add a cast or converted weights if needed."""
        current = TensorProto.FLOAT16 if name in self.fp16_tensors else TensorProto.FLOAT
        if current == dtype:
            return name
        if (name, dtype) not in self.converted_names:
            new = f"{name}_{'fp16' if dtype == TensorProto.FLOAT16 else 'fp32'}"
            if name in self.weights:
                self.graph.initializer.append(_fp16_weights(self.weights[name], new))
            else:
                self.nodes.append(helper.make_node("Cast", [name], [new], to=dtype, name=new))
            self.converted_names[name, dtype] = new
        return self.converted_names[name, dtype]

    def _restore_output(self, value: onnx.ValueInfoProto) -> None:
        """Cast an output to its final data type under its original name."""
        target = TensorProto.FLOAT if self.keep_io else TensorProto.FLOAT16
        current = TensorProto.FLOAT16 if value.name in self.fp16_tensors else TensorProto.FLOAT
        value.type.tensor_type.elem_type = target
        if current == target:
            return
        inner = f"{value.name}_inner"
        for node in self.nodes:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name == value.name:
                        names[index] = inner
        self.nodes.append(helper.make_node("Cast", [inner], [value.name], to=target, name=inner))

    def _drop_unused(self) -> None:
        used = {name for node in self.nodes for name in node.input}
        kept = [item for item in self.graph.initializer if item.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)


def _fold_constants(graph: onnx.GraphProto) -> None:
    """Turn `Constant` nodes into initializers, so that weights have one representation."""
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        for attribute in node.attribute:
            if attribute.name == "value":
                tensor = graph.initializer.add()
                tensor.CopyFrom(attribute.t)
                tensor.name = node.output[0]
                graph.node.remove(node)


def _find_fp32_nodes(graph: onnx.GraphProto) -> set[int]:
    """Return the indices of the nodes that stay in FP32."""
    producers = {name: k for k, node in enumerate(graph.node) for name in node.output}
    consumers: dict[str, list[int]] = defaultdict(list)
    for k, node in enumerate(graph.node):
        for name in node.input:
            consumers[name].append(k)
    selected = {k for k, node in enumerate(graph.node) if node.op_type in _FP32_OPS}
    for k in [k for k in selected if graph.node[k].op_type in _REDUCTIONS]:
        selected |= {
            producers[name]
            for name in graph.node[k].input
            if name in producers and graph.node[producers[name]].op_type in ("Mul", "Pow")
        }
        selected |= _nodes_until_division(graph, consumers, k)
    return selected


def _nodes_until_division(
    graph: onnx.GraphProto, consumers: dict[str, list[int]], start: int
) -> set[int]:
    """Return the nodes from a reduction through square root and clipping to the division."""
    visited, pending = set(), [start]
    while pending:
        for name in graph.node[pending.pop()].output:
            for consumer in consumers[name]:
                op_type = graph.node[consumer].op_type
                if consumer not in visited and op_type in (*_NORM_OPS, "Div"):
                    visited.add(consumer)
                    pending += [consumer] if op_type in _NORM_OPS else []
    return visited


def _fp16_weights(weights: TensorProto, name: str) -> TensorProto:
    values = numpy_helper.to_array(weights)
    return numpy_helper.from_array(np.clip(values, -_FP16_MAX, _FP16_MAX).astype(np.float16), name)
