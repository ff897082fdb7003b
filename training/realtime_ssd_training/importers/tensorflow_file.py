"""TensorFlow graphs: frozen graphs (.pb) and the SavedModels that contain their weights.

The protobuf messages are those that tensorboard ships; TensorFlow itself is not needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from realtime_ssd.core.errors import ModelError, UsageError

__all__ = [
    "Graph",
    "Node",
    "attribute",
    "before_reshape",
    "data_inputs",
    "read_graph",
    "read_text_graph",
    "to_array",
]

Node = Any
"""A `NodeDef` message."""

_DTYPES = {
    1: np.float32,
    2: np.float64,
    3: np.int32,
    4: np.uint8,
    5: np.int16,
    6: np.int8,
    9: np.int64,
    10: np.bool_,
    12: np.uint8,  # quint8
    11: np.int8,  # qint8
    19: np.float16,
}
_VALUE_FIELDS = {
    np.float32: "float_val",
    np.float64: "double_val",
    np.int64: "int64_val",
    np.bool_: "bool_val",
}
_MESSAGE = (
    "'{path}' is not a readable TensorFlow graph; it may be damaged, or not a frozen graph or a "
    "SavedModel"
)


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """The nodes of a graph by name."""

    nodes: dict[str, Node]

    def node(self, reference: str) -> Node:
        """Return the node of an input such as "name", "name:0" or "^name".

        Raises:
            ModelError: If the graph does not have it.
        """
        name = reference.lstrip("^").partition(":")[0]
        if name not in self.nodes:
            raise ModelError(f"the TensorFlow graph has no node '{name}'; it may be damaged")
        return self.nodes[name]

    def ancestors(self, references: Iterable[str], stop: Iterable[str] = ()) -> list[Node]:
        """Return nodes that others depend on, each after its inputs.

        Args:
            references: Inputs to start from; their nodes are included.
            stop: Names of nodes that are not entered.
        """
        order: list[Node] = []
        visited = set(stop)
        stack = [(reference, False) for reference in references]
        while stack:
            reference, is_finished = stack.pop()
            node = self.node(reference)
            if is_finished:
                order.append(node)
            elif node.name not in visited:
                visited.add(node.name)
                stack.append((node.name, True))
                stack += [(item, False) for item in reversed(data_inputs(node))]
        return order


def data_inputs(node: Node) -> list[str]:
    """Return the inputs of a node without control dependencies."""
    return [item for item in node.input if not item.startswith("^")]


def before_reshape(graph: Graph, reference: str) -> str:
    """Return the heads of a batch, which post-processing reshapes to those of all its images."""
    node = graph.node(reference)
    return data_inputs(node)[0] if node.op == "Reshape" else reference


def attribute(node: Node, name: str, kind: str, default: Any = None) -> Any:
    """Return an attribute of a node, for example `kind` "i" for an integer."""
    return getattr(node.attr[name], kind) if name in node.attr else default


def read_graph(path: Path) -> Graph:
    """Read a frozen graph, or the SavedModel in a folder.

    Args:
        path: A .pb file, a folder with saved_model.pb, or a folder that contains such a folder.

    Raises:
        UsageError: If a folder has no model.
        ModelError: If the file is damaged or its weights are elsewhere.
    """
    from tensorboard.compat.proto.graph_pb2 import GraphDef

    file = _model_file(path)
    data = file.read_bytes()
    graph = GraphDef()
    try:
        if file.name == "saved_model.pb":
            graph = _saved_graph(data, file)
        else:
            graph.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(_MESSAGE.format(path=path)) from error
    if not graph.node:
        raise ModelError(_MESSAGE.format(path=path))
    _check_has_weights(graph, path)
    return Graph({node.name: node for node in graph.node})


def _model_file(path: Path) -> Path:
    if path.is_file():
        return path
    for name in ("saved_model.pb", "saved_model/saved_model.pb", "frozen_inference_graph.pb"):
        if (path / name).is_file():
            return path / name
    raise UsageError(
        f"the folder '{path}' has neither saved_model.pb nor frozen_inference_graph.pb"
    )


def _saved_graph(data: bytes, file: Path) -> Any:
    """Return the graph of a SavedModel, a message with meta graphs as its second field."""
    from tensorboard.compat.proto.meta_graph_pb2 import MetaGraphDef

    from realtime_ssd_training.weights.caffe_schema import build_message_class, optional, repeated

    saved_model = build_message_class(
        "SavedModel",
        {
            "SavedModel": {
                "version": optional("int64", number=1),
                "graphs": repeated("bytes", number=2),
            }
        },
    )()
    saved_model.ParseFromString(data)
    if len(saved_model.graphs) != 1:
        raise ModelError(f"'{file}' contains {len(saved_model.graphs)} graphs; one is expected")
    meta = MetaGraphDef()
    meta.ParseFromString(saved_model.graphs[0])
    return meta.graph_def


def _check_has_weights(graph: Any, path: Path) -> None:
    """Reject graphs whose weights are in variables, which are in other files."""
    operations = {node.op for node in graph.node}
    if operations & {"VarHandleOp", "VariableV2", "StatefulPartitionedCall"}:
        raise ModelError(
            f"'{path}' keeps its weights in variables; export it as a TFLite file with "
            "TFLite_Detection_PostProcess, as a frozen graph, or with tf2onnx, and import that"
        )


def read_text_graph(path: Path) -> Graph:
    """Read a graph in text form (.pbtxt), such as OpenCV's descriptions of detectors.

    Raises:
        UsageError: If the file cannot be read or is not a graph.
    """
    from tensorboard.compat.proto.graph_pb2 import GraphDef

    graph = GraphDef()
    try:
        text_format.Parse(path.read_text(encoding="utf-8"), graph)
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        reason = re.sub(r"\s+", " ", str(error))
        raise UsageError(f"the definition '{path}' cannot be read: {reason}") from error
    return Graph({node.name: node for node in graph.node})


def to_array(tensor: Any) -> NDArray[Any]:
    """Return the values of a `TensorProto`.

    Raises:
        ModelError: If its type or size is not supported.
    """
    dtype = _DTYPES.get(tensor.dtype)
    shape = [item.size for item in tensor.tensor_shape.dim]
    if dtype is None or any(size < 0 for size in shape):
        raise ModelError(f"a constant of the TensorFlow graph has the type {tensor.dtype}")
    count = int(np.prod(shape))
    if tensor.tensor_content:
        values = np.frombuffer(tensor.tensor_content, np.dtype(dtype).newbyteorder("<"))
    elif dtype is np.float16:
        values = np.array(tensor.half_val, np.uint16).view(np.float16)
    else:
        values = np.array(getattr(tensor, _VALUE_FIELDS.get(dtype, "int_val")), dtype)
    if len(values) < count and not tensor.tensor_content:
        # The last value stands for the missing ones.
        last = values[-1] if len(values) else dtype(0)
        values = np.concatenate([values, np.full(count - len(values), last, dtype)])
    if len(values) != count:
        raise ModelError(
            "a constant of the TensorFlow graph has a size that does not fit its shape"
        )
    return values.reshape(shape)
