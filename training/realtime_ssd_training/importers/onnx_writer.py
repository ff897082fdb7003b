"""Last step of every import: make the batch dynamic, check the result, write the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.files import replace_file
from realtime_ssd.core.spec import InputSpec, ModelSpec, attach_spec
from realtime_ssd_training.importers.onnx_graph import Floats, Model, run

__all__ = ["make_batch_dynamic", "random_images", "write_model"]

TOLERANCE = 1e-4
BATCH = "batch"


def random_images(spec: InputSpec, count: int, seed: int = 0) -> Floats:
    """Return random images as the network receives them.

    Returns:
        count × 3 × height × width float32, normalized according to `spec`.
    """
    shape = (count, 3, spec.height, spec.width)
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.float32)
    mean, scale = (np.array(values, np.float32) for values in (spec.mean, spec.scale))
    result: Floats = (pixels - mean[:, None, None]) * scale[:, None, None]
    return result


def write_model(model: Model, spec: ModelSpec, path: Path) -> bool:
    """Check a model against its specification and write both to one file.

    Args:
        model: Graph with a batch of 1 whose input and outputs have the names in `spec`.
        spec: The specification.
        path: File to write. It is written only if the checks pass.

    Returns:
        Whether the file accepts any batch size; otherwise only 1.

    Raises:
        ModelError: If the outputs of the graph do not match the specification.
        UsageError: If the file cannot be written.
    """
    images = random_images(spec.input, 2)
    names = [spec.scores_output, spec.offsets_output]
    singles = [run(model, {spec.input.name: images[i : i + 1]}, names) for i in range(2)]
    _check_heads(singles[0], spec)
    expected = [np.concatenate(heads) for heads in zip(*singles, strict=True)]
    dynamic_model = make_batch_dynamic(model)
    dynamic_batch = _batch_matches(dynamic_model, spec, images, expected)
    result = dynamic_model if dynamic_batch else model
    attach_spec(result, spec)
    result.producer_name = "realtime-ssd"
    try:
        replace_file(path, result.SerializeToString())
    except OSError as error:
        raise UsageError(f"'{path}' cannot be written: {error.strerror or error}") from error
    return dynamic_batch


def _check_heads(heads: list[Floats], spec: ModelSpec) -> None:
    """Check shapes and values of the outputs."""
    num_boxes = spec.num_boxes or heads[1].shape[1]
    for head, name, columns in (
        (heads[0], "scores", spec.num_classes),
        (heads[1], "boxes", 4),
    ):
        if head.shape != (1, num_boxes, columns):
            raise ModelError(
                f"the {name} of '{spec.name}' have shape {head.shape}, but the specification "
                f"requires {(1, num_boxes, columns)}; set `labels` and `anchors` that fit"
            )
        if not np.isfinite(head).all():
            raise ModelError(
                f"the {name} of '{spec.name}' are not finite numbers; its weights may be damaged"
            )


def make_batch_dynamic(model: Model) -> Model:
    """Copy a model with a dynamic batch size, as far as its reshapes allow.

    A reshape to (1, …) becomes one to (0, …), which keeps the batch size. Whether that is correct
    must be checked numerically by the caller.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        sizes = value.type.tensor_type.shape.dim
        if len(sizes):
            sizes[0].dim_param = BATCH
    shape_names = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for weight in graph.initializer:
        if weight.name in shape_names:
            _keep_batch_size(weight)
    for node in graph.node:
        if node.op_type == "Constant" and node.output[0] in shape_names:
            _keep_batch_size(node.attribute[0].t)
    return copy


def _keep_batch_size(shape: Any) -> None:
    """Change a constant shape (1, …) to (0, …)."""
    values: NDArray[np.int64] = onnx.numpy_helper.to_array(shape)
    if values.ndim == 1 and len(values) and values[0] == 1:
        changed = np.concatenate([np.zeros(1, np.int64), values[1:]])
        shape.CopyFrom(onnx.numpy_helper.from_array(changed, shape.name))


def _batch_matches(model: Model, spec: ModelSpec, images: Floats, expected: list[Floats]) -> bool:
    """Return whether a batch of two has the same outputs as the two images alone."""
    try:
        heads = run(model, {spec.input.name: images}, [spec.scores_output, spec.offsets_output])
    except ModelError:
        return False
    return all(
        a.shape == b.shape and np.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE)
        for a, b in zip(heads, expected, strict=True)
    )
