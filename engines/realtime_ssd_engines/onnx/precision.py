"""FP32 → FP16 in the ONNX graph itself, with islands where FP16 would lose or overflow.

Softmax, and L2Norm with the sums and roots around it, stay in FP32; all else becomes FP16. The
result means the same to every runtime: TensorRT 11 knows no other way to ask for FP16.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from realtime_ssd.core.errors import ModelError, first_line

__all__ = ["to_fp16"]

_SUMS = {"ReduceSum", "ReduceMean", "ReduceL2", "LpNormalization"}
_WIDE = {"Softmax", "LogSoftmax", "Exp", *_SUMS}
_AFTER_SUM = {"Sqrt", "Clip", "Max", "Add", "Expand", "Reciprocal"}
_NOT_DATA = {"Resize": (1, 2), "Upsample": (1,)}  # inputs whose type the operator fixes
_LARGEST = float(np.finfo(np.float16).max)


def to_fp16(model: onnx.ModelProto, *, keep_io: bool = True) -> onnx.ModelProto:
    """Convert a model.

    Args:
        model: FP32 model; it is not changed.
        keep_io: Whether inputs and outputs stay FP32; else they are FP16, as an engine wants them.

    Returns:
        The checked FP16 model with the same metadata.

    Raises:
        ModelError: If the result is no valid model.
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
    """Walks a graph once, node by node, and keeps track of which tensors are FP16 by then."""

    def __init__(self, model: onnx.ModelProto, keep_io: bool) -> None:
        self.graph, self.keep_io = model.graph, keep_io
        _fold_constants(self.graph)
        inferred = onnx.shape_inference.infer_shapes(model).graph
        values = [*inferred.value_info, *inferred.input, *inferred.output]
        self.floats = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
        self.weights = {
            item.name: item
            for item in self.graph.initializer
            if item.data_type == TensorProto.FLOAT
        }
        self.half: set[str] = set()
        self.made: dict[tuple[str, int], str] = {}
        self.nodes: list[NodeProto] = []
        self.wide = _islands(self.graph)

    def run(self) -> None:
        weights = set(self.weights)
        for value in self.graph.input:
            if value.name in self.floats and value.name not in weights and not self.keep_io:
                value.type.tensor_type.elem_type = TensorProto.FLOAT16
                self.half.add(value.name)
        outputs = {value.name for value in self.graph.output if value.name in self.floats}
        for number, node in enumerate(list(self.graph.node)):
            self._convert(node, wide=number in self.wide)
        for value in self.graph.output:
            if value.name in outputs:
                self._finish(value)
        del self.graph.node[:], self.graph.value_info[:]
        self.graph.node.extend(self.nodes)
        self._drop_unused()

    def _convert(self, node: NodeProto, *, wide: bool) -> None:
        fixed = _NOT_DATA.get(node.op_type, ())
        target = TensorProto.FLOAT if wide else TensorProto.FLOAT16
        for place, name in enumerate(node.input):
            if place in fixed or not (name in self.floats or name in self.weights):
                continue
            node.input[place] = self._as(name, target)
        made_float = [name for name in node.output if name in self.floats]
        if node.op_type == "Cast" and made_float:
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                    attribute.i = target
        self.nodes.append(node)
        if not wide:
            self.half.update(made_float)

    def _as(self, name: str, kind: int) -> str:
        """Give the name under which a tensor is there in a precision, making it if need be."""
        have = TensorProto.FLOAT16 if name in self.half else TensorProto.FLOAT
        if have == kind:
            return name
        if (name, kind) not in self.made:
            new = f"{name}_{'fp16' if kind == TensorProto.FLOAT16 else 'fp32'}"
            if name in self.weights:
                self.graph.initializer.append(_narrow(self.weights[name], new))
            else:
                self.nodes.append(helper.make_node("Cast", [name], [new], to=kind, name=new))
            self.made[name, kind] = new
        return self.made[name, kind]

    def _finish(self, value: onnx.ValueInfoProto) -> None:
        """Give an output its name back in the precision it shall have."""
        wanted = TensorProto.FLOAT if self.keep_io else TensorProto.FLOAT16
        have = TensorProto.FLOAT16 if value.name in self.half else TensorProto.FLOAT
        value.type.tensor_type.elem_type = wanted
        if have == wanted:
            return
        inner = f"{value.name}_inner"
        for node in self.nodes:
            for names in (node.input, node.output):
                for place, name in enumerate(names):
                    if name == value.name:
                        names[place] = inner
        self.nodes.append(helper.make_node("Cast", [inner], [value.name], to=wanted, name=inner))

    def _drop_unused(self) -> None:
        used = {name for node in self.nodes for name in node.input}
        kept = [item for item in self.graph.initializer if item.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)


def _fold_constants(graph: onnx.GraphProto) -> None:
    """Turn `Constant` nodes into initializers, so that there is one kind of weights."""
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        for attribute in node.attribute:
            if attribute.name == "value":
                tensor = graph.initializer.add()
                tensor.CopyFrom(attribute.t)
                tensor.name = node.output[0]
                graph.node.remove(node)


def _islands(graph: onnx.GraphProto) -> set[int]:
    """Number the nodes that stay in FP32."""
    makers = {name: k for k, node in enumerate(graph.node) for name in node.output}
    users: dict[str, list[int]] = defaultdict(list)
    for k, node in enumerate(graph.node):
        for name in node.input:
            users[name].append(k)
    wide = {k for k, node in enumerate(graph.node) if node.op_type in _WIDE}
    for k in [k for k in wide if graph.node[k].op_type in _SUMS]:
        wide |= {
            makers[name]
            for name in graph.node[k].input
            if name in makers and graph.node[makers[name]].op_type in ("Mul", "Pow")
        }
        wide |= _until_division(graph, users, k)
    return wide


def _until_division(graph: onnx.GraphProto, users: dict[str, list[int]], start: int) -> set[int]:
    """Follow a sum through root and limits to the division it is made for."""
    found, waiting = set(), [start]
    while waiting:
        for name in graph.node[waiting.pop()].output:
            for user in users[name]:
                kind = graph.node[user].op_type
                if user not in found and kind in (*_AFTER_SUM, "Div"):
                    found.add(user)
                    waiting += [user] if kind in _AFTER_SUM else []
    return found


def _narrow(weights: TensorProto, name: str) -> TensorProto:
    values = numpy_helper.to_array(weights)
    return numpy_helper.from_array(np.clip(values, -_LARGEST, _LARGEST).astype(np.float16), name)
