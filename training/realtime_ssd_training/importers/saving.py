"""The last step of every import: batch made dynamic, result checked, file written whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.files import replace_file
from realtime_ssd.core.spec import InputSpec, ModelSpec, attach_spec
from realtime_ssd_training.importers.graph import Floats, Model, run

__all__ = ["check_target", "make_batch_dynamic", "noise", "save"]

TOLERANCE = 1e-4
BATCH = "batch"


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuse an output path before any work is done.

    Raises:
        UsageError: If the path is no .onnx file, exists already or lies in no folder.
    """
    if path.suffix.lower() != ".onnx":
        raise UsageError(f"the output '{path}' must end in .onnx")
    if path.exists() and not overwrite:
        raise UsageError(f"'{path}' exists; set `overwrite` to replace it")
    if not path.parent.is_dir():
        raise UsageError(f"the folder of '{path}' does not exist; create it first")


def noise(spec: InputSpec, count: int, seed: int = 0) -> Floats:
    """Make random images as the network would see them.

    Returns:
        count × 3 × height × width float32, normalised as `spec` says.
    """
    shape = (count, 3, spec.height, spec.width)
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.float32)
    mean, scale = (np.array(values, np.float32) for values in (spec.mean, spec.scale))
    result: Floats = (pixels - mean[:, None, None]) * scale[:, None, None]
    return result


def save(model: Model, spec: ModelSpec, path: Path) -> bool:
    """Check a model against its specification and write both into one file.

    Args:
        model: Graph whose input and outputs are named as `spec` says, with a batch of 1.
        spec: The contract.
        path: File to write; it appears only when all is well.

    Returns:
        Whether the file takes any batch size; if not, it takes 1.

    Raises:
        ModelError: If the graph's outputs do not fit the specification.
        UsageError: If the file cannot be written.
    """
    images = noise(spec.input, 2)
    names = [spec.scores_output, spec.offsets_output]
    singles = [run(model, {spec.input.name: images[i : i + 1]}, names) for i in range(2)]
    _check_heads(singles[0], spec)
    wanted = [np.concatenate(parts) for parts in zip(*singles, strict=True)]
    dynamic = make_batch_dynamic(model)
    good = _agrees(dynamic, spec, images, wanted)
    chosen = dynamic if good else model
    attach_spec(chosen, spec)
    chosen.producer_name = "realtime-ssd"
    try:
        replace_file(path, chosen.SerializeToString())
    except OSError as error:
        raise UsageError(f"'{path}' cannot be written: {error.strerror or error}") from error
    return good


def _check_heads(heads: list[Floats], spec: ModelSpec) -> None:
    """Compare the shapes and values of the outputs with the specification."""
    boxes = spec.num_boxes or heads[1].shape[1]
    for head, name, columns in (
        (heads[0], "scores", spec.num_classes),
        (heads[1], "boxes", 4),
    ):
        if head.shape != (1, boxes, columns):
            raise ModelError(
                f"the {name} of '{spec.name}' have shape {head.shape}, but its specification says "
                f"{(1, boxes, columns)}; give fitting labels and anchors"
            )
        if not np.isfinite(head).all():
            raise ModelError(
                f"the {name} of '{spec.name}' are not finite numbers; its weights may be damaged"
            )


def make_batch_dynamic(model: Model) -> Model:
    """Copy a model with an open batch size, as far as fixed reshapes allow.

    A reshape to (1, …) becomes one to (0, …), which keeps the batch; whether that was right is
    for the caller to check numerically.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        sizes = value.type.tensor_type.shape.dim
        if len(sizes):
            sizes[0].dim_param = BATCH
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for weight in graph.initializer:
        if weight.name in shapes:
            _open_first(weight)
    for node in graph.node:
        if node.op_type == "Constant" and node.output[0] in shapes:
            _open_first(node.attribute[0].t)
    return copy


def _open_first(shape: Any) -> None:
    """Change a constant shape (1, …) to (0, …)."""
    values: NDArray[np.int64] = onnx.numpy_helper.to_array(shape)
    if values.ndim == 1 and len(values) and values[0] == 1:
        opened = np.concatenate([np.zeros(1, np.int64), values[1:]])
        shape.CopyFrom(onnx.numpy_helper.from_array(opened, shape.name))


def _agrees(model: Model, spec: ModelSpec, images: Floats, wanted: list[Floats]) -> bool:
    """Tell whether a batch of two gives what the images gave one by one."""
    try:
        got = run(model, {spec.input.name: images}, [spec.scores_output, spec.offsets_output])
    except ModelError:
        return False
    return all(
        a.shape == b.shape and np.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE)
        for a, b in zip(got, wanted, strict=True)
    )
