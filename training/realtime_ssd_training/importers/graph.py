"""Small tools on ONNX graphs: look at them, run them, cut and rename them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from realtime_ssd.core.errors import ModelError, first_line

__all__ = [
    "Model",
    "Port",
    "extract",
    "inputs",
    "load",
    "outputs",
    "producers",
    "rename",
    "run",
    "shapes",
    "values",
    "zeros",
]

Floats = NDArray[np.float32]
Model: TypeAlias = onnx.ModelProto


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a graph.

    Attributes:
        name: Name of the tensor.
        shape: Declared sizes; None where a size is open.
    """

    name: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        sizes = "×".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name} {sizes or '(no shape)'}"


def load(path: Path) -> Model:
    """Read an ONNX file.

    Raises:
        ModelError: If it is no ONNX model.
    """
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as error:
        raise ModelError(f"'{path}' is not a readable ONNX file: it may be damaged") from error
    return model


def inputs(model: Model) -> list[Port]:
    """List the inputs of a graph, without weights that old exporters list as inputs."""
    weights = {item.name for item in model.graph.initializer}
    return [_port(item) for item in model.graph.input if item.name not in weights]


def outputs(model: Model) -> list[Port]:
    """List the outputs of a graph."""
    return [_port(item) for item in model.graph.output]


def _port(value: Any) -> Port:
    sizes = value.type.tensor_type.shape.dim
    return Port(value.name, tuple(size.dim_value or None for size in sizes))


def values(weight: Any) -> NDArray[Any]:
    """Give the numbers of a stored tensor."""
    result: NDArray[Any] = onnx.numpy_helper.to_array(weight)
    return result


def producers(model: Model) -> dict[str, Any]:
    """Give for every computed tensor the node that computes it."""
    return {name: node for node in model.graph.node for name in node.output}


def run(
    model: Model, feeds: Mapping[str, NDArray[Any]], names: Sequence[str] | None = None
) -> list[Floats]:
    """Run a model in ONNX Runtime on the CPU.

    Args:
        model: The model.
        feeds: Inputs by name.
        names: Wanted outputs; all if None.

    Raises:
        ModelError: If ONNX Runtime cannot load or run it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return [np.asarray(value) for value in session.run(names, dict(feeds))]
    except Exception as error:
        reason = first_line(error, "unknown")
        raise ModelError(f"ONNX Runtime cannot run the model: {reason}") from error


def rename(model: Model, old: str, new: str) -> None:
    """Rename a tensor wherever it occurs; a tensor that has the new name already makes way."""
    if old == new:
        return
    if new in _tensor_names(model):
        rename(model, new, f"{new}.before_import")
    for node in model.graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == old:
                    names[place] = new
    graph = model.graph
    for item in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        if item.name == old:
            item.name = new


def _tensor_names(model: Model) -> set[str]:
    graph = model.graph
    names = {item.name for item in (*graph.input, *graph.output, *graph.initializer)}
    return names.union(*(set(node.input) | set(node.output) for node in graph.node))


def shapes(model: Model, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Measure the shapes of tensors inside a graph by running it on zeros."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    results = run(probe, {port.name: zeros(port) for port in inputs(model)})
    return {name: result.shape for name, result in zip(names, results, strict=True)}


def zeros(port: Port) -> Floats:
    """Make a float32 input of zeros; open sizes become 1."""
    return np.zeros([size or 1 for size in port.shape], np.float32)


def extract(
    model: Model,
    given: Mapping[str, Sequence[int]],
    wanted: Mapping[str, Sequence[int]],
) -> Model:
    """Copy the part of a model that computes some tensors, without anything they do not need.

    Args:
        model: The model.
        given: Tensors that become inputs, float32, with their shapes; inputs of the model that
            are still needed stay inputs.
        wanted: Tensors that become the outputs, in this order, float32, with their shapes.
    """
    part = onnx.ModelProto()
    part.CopyFrom(model)
    part_graph = part.graph
    weights = {item.name: item for item in model.graph.initializer}
    needed, nodes = set(wanted), []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output).difference(given):
            nodes.append(node)
            needed.update(node.input)
    ports = [
        item
        for item in model.graph.input
        if item.name in needed and item.name not in weights and item.name not in given
    ]
    del part_graph.node[:], part_graph.initializer[:], part_graph.input[:], part_graph.output[:]
    del part_graph.value_info[:], part.metadata_props[:]
    part_graph.node.extend(reversed(nodes))
    part_graph.initializer.extend(item for name, item in weights.items() if name in needed)
    part_graph.input.extend([*ports, *map(_float_port, given, given.values())])
    part_graph.output.extend(map(_float_port, wanted, wanted.values()))
    return part


def _float_port(name: str, shape: Sequence[int]) -> Any:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(shape))
