"""Checks of an ONNX graph before anything runs it.

The graph must end, be no larger than an SSD of its input size, and read only files of its own
folder. SSDs need no loops, branches or functions: a loop may never end, and nested functions grow
to any size when they are expanded. External weights may name any file of the machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.graph_operators import OPERATORS
from realtime_ssd.core.graph_shapes import SizeError
from realtime_ssd.core.graph_sizes import check_sizes

if TYPE_CHECKING:
    import onnx

__all__ = ["check_external_data", "check_graph", "graph_inputs"]

_CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_DOMAINS = ("", "ai.onnx")
_MAX_NODES = 20_000
_TRUST = "set `trust_model` if you trust its author"


def check_graph(
    model: onnx.ModelProto, path: Path, shapes: Mapping[str, Sequence[int]], heads: int = 0
) -> None:
    """Refuse a graph that may never end, or that is too large for an SSD.

    Args:
        model: The model, read without its external data.
        path: File of the model, for messages.
        shapes: Shape of each input for which it will run.
        heads: Elements of the scores and offsets.

    Raises:
        ModelError: If the graph has functions, operators that SSDs do not need, or tensors that
            are too large for the inputs.
    """
    if model.functions:
        raise _refused(path, "contains functions, which SSDs do not need")
    for node in model.graph.node:
        _check_operator(node, path)
    try:
        _check_constants(model.graph)
        check_sizes(model, shapes, heads)
    except SizeError as error:
        raise _refused(path, str(error)) from None


def check_external_data(model: onnx.ModelProto, path: Path) -> None:
    """Refuse a model with weights outside the folder of its file.

    Args:
        model: The model, read without its external data.
        path: File of the model.

    Raises:
        ModelError: If weights are outside the folder, or a link leads there.
    """
    folder = path.parent.resolve()
    for tensor in _tensors(model.graph):
        if tensor.data_location == tensor.EXTERNAL or tensor.external_data:
            _check_location(tensor, folder, path)


def graph_inputs(graph: Any) -> Iterator[Any]:
    """Yield the inputs of a graph, without the weights that old exporters list as inputs."""
    weights = {item.name for item in graph.initializer}
    return (item for item in graph.input if item.name not in weights)


def _refused(path: Path, problem: str) -> ModelError:
    return ModelError(f"'{path}' {problem}; {_TRUST}")


def _check_operator(node: Any, path: Path) -> None:
    nested = any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
    if nested or node.op_type in _CONTROL_FLOW:
        operator = node.op_type if node.op_type in _CONTROL_FLOW else "with a nested graph"
        raise ModelError(
            f"'{path}' contains an operator {operator}, which may never end; export the model "
            f"without control flow, up to its raw scores and offsets, or {_TRUST}"
        )
    if node.op_type not in OPERATORS or node.domain not in _DOMAINS:
        name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        raise _refused(path, f"contains an operator '{name}', which SSDs do not need")


def _check_constants(graph: Any) -> None:
    """Check that constants have the sizes that they declare, and that names are unique."""
    if len(graph.node) > _MAX_NODES:
        raise SizeError(f"has {len(graph.node)} operators, more than {_MAX_NODES}")
    names = [tensor.name for tensor in graph.initializer]
    names += [name for node in graph.node for name in node.output if name]
    if len(set(names)) < len(names):
        raise SizeError("is damaged: two of its tensors have the same name")
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    if graph.sparse_initializer or any(
        attribute.HasField("sparse_tensor") or attribute.sparse_tensors for attribute in attributes
    ):
        raise SizeError("contains sparse tensors, which SSDs do not need")
    for tensor in _tensors(graph):
        if len(tensor.dims) > _MAX_RANK or any(size > _MAX_SIDE for size in tensor.dims):
            raise SizeError(f"has a constant '{tensor.name}' of an impossible shape")
        if tensor.data_location != tensor.EXTERNAL and not _is_complete(tensor):
            raise SizeError(f"is damaged: values of its constant '{tensor.name}' are missing")


def _is_complete(tensor: Any) -> bool:
    """Return whether a tensor with its values in the file has as many as it declares."""
    if any(size < 0 for size in tensor.dims):
        return False
    stored = max(
        len(tensor.raw_data),
        *(len(getattr(tensor, f"{kind}_data")) for kind in _STORED_AS),
    )
    return bool(stored * _PACKED >= prod(tensor.dims))


_MAX_RANK, _MAX_SIDE = 32, 2**40
"""Dimensions of a constant, and the largest of them, that are multiplied at all."""

_STORED_AS = ("float", "int32", "int64", "double", "uint64", "string")
_PACKED = 8
"""Most elements in one stored value: four-bit types have eight in 32 bits."""


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            sparse_tensors = list(attribute.sparse_tensors)
            if attribute.HasField("sparse_tensor"):
                sparse_tensors.append(attribute.sparse_tensor)
            for sparse in sparse_tensors:
                yield from (sparse.values, sparse.indices)


def _check_location(tensor: Any, folder: Path, path: Path) -> None:
    locations = [entry.value for entry in tensor.external_data if entry.key == "location"]
    for location in locations or [""]:
        name = PurePosixPath(location)
        try:
            safe = (
                bool(location)
                and not name.is_absolute()
                and ".." not in name.parts
                and "\\" not in location
                and (folder / name).resolve().is_relative_to(folder)
            )
        except (OSError, RuntimeError, ValueError):  # a loop of links, a NUL character
            safe = False
        if not safe:
            raise ModelError(
                f"'{path}' reads weights from outside its folder; save the model with its weights "
                "in one file"
            )
