"""Checks of an ONNX graph before anything runs it: it ends, and it reads only its own folder.

SSDs need no loops, branches or functions. A loop may never end, and nested functions grow to
any size when they are expanded. External weights may name any file of the machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from realtime_ssd.core.errors import ModelError

if TYPE_CHECKING:
    import onnx

__all__ = ["check_graph"]

_CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})


def check_graph(model: onnx.ModelProto, path: Path) -> None:
    """Refuse a graph that may never end, or that reads files outside its own folder.

    Args:
        model: The model, read without its external data.
        path: File of the model.

    Raises:
        ModelError: If the graph has control flow or functions, or its external data is outside
            the folder of `path`.
    """
    if model.functions:
        raise ModelError(
            f"'{path}' contains functions, which SSDs do not need; export it without functions"
        )
    for node in model.graph.node:
        nested = any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
        if nested or node.op_type in _CONTROL_FLOW:
            operator = node.op_type if node.op_type in _CONTROL_FLOW else "with a nested graph"
            raise ModelError(
                f"'{path}' contains an operator {operator}, which may never end; export the model "
                "without control flow, up to its raw scores and offsets"
            )
    folder = path.parent.resolve()
    for tensor in _external_tensors(model.graph):
        _check_location(tensor, folder, path)


def _external_tensors(graph: Any) -> Iterator[Any]:
    """List the tensors of a graph whose values are in other files."""
    for tensor in _tensors(graph):
        if tensor.data_location == tensor.EXTERNAL or tensor.external_data:
            yield tensor


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
