"""Operations on ONNX graphs: inspect, run, extract a part, rename tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from realtime_ssd.core.errors import ModelError, first_line
from realtime_ssd.core.graph_safety import check_external_data, check_graph

__all__ = [
    "Floats",
    "Model",
    "TensorInfo",
    "check",
    "extract",
    "inputs",
    "load",
    "measure_shapes",
    "outputs",
    "producers",
    "rename",
    "run",
    "to_array",
    "zeros",
]

Floats = NDArray[np.float32]
Model: TypeAlias = onnx.ModelProto


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input or output of a graph.

    Attributes:
        name: Name of the tensor.
        shape: Declared sizes; None for a dynamic size.
    """

    name: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        sizes = "×".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name} {sizes or '(no shape)'}"


def load(path: Path, *, trust_model: bool = False, unchecked: bool = False) -> Model:
    """Read an ONNX file.

    Args:
        path: The file.
        trust_model: Whether to accept a graph that `check_graph` refuses.
        unchecked: Whether to leave the check to the caller, who only runs parts of the graph.

    Raises:
        ModelError: If it is not a valid ONNX model, or one that `check_graph` refuses.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
        check_external_data(model, path)
        if not trust_model and not unchecked:
            check(model, path)
        onnx.load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(model)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"'{path}' is not a readable ONNX file; it may be damaged") from error
    return model


def check(model: Model, path: Path) -> None:
    """Refuse a graph that must not run; see `check_graph`."""
    check_graph(model, path, {item.name: _fixed(item) for item in inputs(model)})


def inputs(model: Model) -> list[TensorInfo]:
    """List the inputs of a graph, without the weights that old exporters list as inputs."""
    weights = {item.name for item in model.graph.initializer}
    return [_tensor_info(item) for item in model.graph.input if item.name not in weights]


def outputs(model: Model) -> list[TensorInfo]:
    """List the outputs of a graph."""
    return [_tensor_info(item) for item in model.graph.output]


def _tensor_info(value: Any) -> TensorInfo:
    sizes = value.type.tensor_type.shape.dim
    return TensorInfo(value.name, tuple(size.dim_value or None for size in sizes))


def to_array(tensor: Any) -> NDArray[Any]:
    """Return the values of a stored tensor."""
    result: NDArray[Any] = onnx.numpy_helper.to_array(tensor)
    return result


def producers(model: Model) -> dict[str, Any]:
    """Return, for every computed tensor, the node that computes it."""
    return {name: node for node in model.graph.node for name in node.output}


def run(
    model: Model, feeds: Mapping[str, NDArray[Any]], names: Sequence[str] | None = None
) -> list[Floats]:
    """Run a model in ONNX Runtime on the CPU.

    Args:
        model: The model.
        feeds: Inputs by name.
        names: Outputs to return; all if None.

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
    """Rename a tensor everywhere; another tensor with the new name is renamed first."""
    if old == new:
        return
    if new in _tensor_names(model):
        rename(model, new, f"{new}.before_import")
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
    graph = model.graph
    for item in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        if item.name == old:
            item.name = new


def _tensor_names(model: Model) -> set[str]:
    graph = model.graph
    names = {item.name for item in (*graph.input, *graph.output, *graph.initializer)}
    return names.union(*(set(node.input) | set(node.output) for node in graph.node))


def measure_shapes(model: Model, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of tensors inside a graph, measured by a run on zeros."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    results = run(probe, {tensor.name: zeros(tensor) for tensor in inputs(model)})
    return {name: result.shape for name, result in zip(names, results, strict=True)}


def zeros(tensor: TensorInfo) -> Floats:
    """Return a float32 input of zeros; dynamic sizes become 1."""
    return np.zeros(_fixed(tensor), np.float32)


def _fixed(tensor: TensorInfo) -> list[int]:
    return [size or 1 for size in tensor.shape]


def extract(
    model: Model,
    new_inputs: Mapping[str, Sequence[int]],
    new_outputs: Mapping[str, Sequence[int]],
) -> Model:
    """Copy the part of a model that computes some tensors, without unused nodes and weights.

    Args:
        model: The model.
        new_inputs: Shapes of tensors that become float32 inputs, by name. Inputs of the model
            that are still needed remain inputs.
        new_outputs: Shapes of the tensors that become the float32 outputs, by name, in order.
    """
    part = onnx.ModelProto()
    part.CopyFrom(model)
    graph = part.graph
    weights = {item.name: item for item in model.graph.initializer}
    needed, nodes = set(new_outputs), []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output).difference(new_inputs):
            nodes.append(node)
            needed.update(node.input)
    kept_inputs = [
        item
        for item in model.graph.input
        if item.name in needed and item.name not in weights and item.name not in new_inputs
    ]
    del graph.node[:], graph.initializer[:], graph.input[:], graph.output[:]
    del graph.value_info[:], part.metadata_props[:]
    graph.node.extend(reversed(nodes))
    graph.initializer.extend(item for name, item in weights.items() if name in needed)
    graph.input.extend([*kept_inputs, *map(_float_tensor, new_inputs, new_inputs.values())])
    graph.output.extend(map(_float_tensor, new_outputs, new_outputs.values()))
    return part


def _float_tensor(name: str, shape: Sequence[int]) -> Any:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(shape))
