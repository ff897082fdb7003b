"""Export of a trained network to ONNX.

The file has raw heads (`scores`: N × P × C logits, `offsets`: N × P × 4), a dynamic batch size,
opset 17 and the whole `ModelSpec` in its metadata. It is compared with PyTorch before it is kept.
"""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from realtime_ssd.core.errors import ModelError, RealtimeSSDError, UsageError
from realtime_ssd.core.files import check_output, replace_file
from realtime_ssd.core.frames import Image
from realtime_ssd.core.postprocess import PostProcessor
from realtime_ssd.core.preprocess import preprocess
from realtime_ssd.core.spec import ModelSpec, attach_spec
from realtime_ssd_training.data.concat import open_datasets
from realtime_ssd_training.data.sample import Dataset
from realtime_ssd_training.models import SSD

__all__ = [
    "OPSET",
    "PRECISIONS",
    "TOLERANCE",
    "export_onnx",
    "first_images",
    "images_of_run",
    "to_onnx",
]

OPSET = 17
"""The newest opset that TensorRT 8.6 supports."""

OUTPUT_NAMES = ["scores", "offsets"]
PRECISIONS = ("fp32", "fp16")
TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2}
"""Maximum absolute error of a probability, and maximum relative error of an offset."""

FP16_OFFSET_FACTOR = 2.5
"""Factor on the tolerance of FP16 offsets: 0.05 times the variance moves an edge by 1 % of a box.

Rounding alone exceeds 0.02 in the worst of the 98,256 offsets of SSD512.
"""

ROUNDING_FACTOR = 10
"""An FP32 export may differ by this many times PyTorch's own rounding error, if that is larger."""

Array = NDArray[np.float32]

_log = logging.getLogger(__name__)


def export_onnx(
    model: SSD,
    path: Path,
    precision: str = "fp32",
    photos: Sequence[Image] = (),
    *,
    force: bool = False,
) -> float:
    """Export a network to ONNX and compare it with PyTorch.

    Args:
        model: The network; it is switched to evaluation mode.
        path: File to write. An existing file is replaced only if the comparison succeeds.
        precision: "fp32" or "fp16" (weights and most layers; softmax and L2Norm stay in FP32).
        photos: H × W × 3 BGR images for the comparison; frames of the synthetic street if empty.
        force: Whether to write the file, with a warning, although its outputs differ from
            PyTorch's by more than rounding explains, as those of a barely trained network in FP16
            may.

    Returns:
        The maximum absolute difference of a class probability.

    Raises:
        UsageError: If the precision is unknown or the file cannot be written.
        ModelError: If the outputs of the exported network differ from PyTorch's, or are not finite.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"`precision` must be {' or '.join(PRECISIONS)}, not '{precision}'")
    check_output(path, overwrite=True)
    exported = to_onnx(model)
    if precision == "fp16":
        from realtime_ssd_engines.onnx.precision import to_fp16

        exported = to_fp16(exported)
    data = exported.SerializeToString()
    error = _compare(model, data, photos or _street_images(), precision, force=force)
    try:
        replace_file(path, data)
    except OSError as problem:
        raise UsageError(f"'{path}' cannot be written: {problem.strerror}") from None
    return error


def to_onnx(model: SSD) -> onnx.ModelProto:
    """Convert a network to ONNX with its `ModelSpec` in the metadata.

    Args:
        model: The network; it is switched to evaluation mode and moved to the CPU.

    Returns:
        The model, verified by the ONNX checker.
    """
    model = model.eval().cpu().float()
    spec = replace(model.spec, scores_output="scores", offsets_output="offsets")
    size = spec.input
    example = torch.zeros(2, 3, size.height, size.width)
    batch = {0: "batch"}
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # The newer exporter writes opset 18, which cannot be converted to 17 for every network.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (example,),
            buffer,  # type: ignore[arg-type]
            input_names=[size.name],
            output_names=OUTPUT_NAMES,
            dynamic_axes={size.name: batch, "scores": batch, "offsets": batch},
            opset_version=OPSET,
            dynamo=False,
        )
    exported = onnx.load_model_from_string(buffer.getvalue())
    _set_output_shapes(exported, spec)
    attach_spec(exported, spec)
    onnx.checker.check_model(exported, full_check=True)
    return exported


def _set_output_shapes(exported: onnx.ModelProto, spec: ModelSpec) -> None:
    """Declare the shapes of the heads, which the exporter leaves dynamic."""
    for output, columns in zip(exported.graph.output, (spec.num_classes, 4), strict=True):
        sizes = output.type.tensor_type.shape.dim
        sizes[1].dim_value, sizes[2].dim_value = spec.num_boxes, columns


def images_of_run(metadata: Mapping[str, Any]) -> tuple[list[Image], str]:
    """Read images of the validation or training data of a run.

    Args:
        metadata: Metadata of a checkpoint, with the recipe of the run.

    Returns:
        The images and the name of the dataset; ([], "") if no dataset can be read.
    """
    names = (metadata.get("recipe") or {}).get("data") or {}
    for name in (names.get("val"), names.get("train")):
        try:
            images = first_images(open_datasets(str(name))) if name else []
        except (RealtimeSSDError, AttributeError):
            continue
        if images:
            return images, str(name)
    return [], ""


def first_images(data: Dataset, limit: int = 4) -> list[Image]:
    """Read the first `limit` images of a dataset, skipping unreadable ones."""
    images = []
    for index in range(min(limit, len(data))):
        with suppress(RealtimeSSDError):
            images.append(data[index].image)
    return images


def _street_images() -> list[Image]:
    from realtime_ssd.synthetic import StreetScene

    return [StreetScene(640, 360, seed=seed).render(40) for seed in (5, 6)]


def _compare(
    model: SSD, data: bytes, photos: Sequence[Image], precision: str, *, force: bool
) -> float:
    """Run images through both networks, in batches of 1 and in one batch.

    Returns:
        The maximum absolute difference of a probability.

    Raises:
        ModelError: If a difference exceeds its tolerance or is NaN, or the file does not run.
    """
    spec, tolerance = model.spec, TOLERANCE[precision]
    if len(photos) == 1:  # a batch needs two
        photos = [photos[0], np.ascontiguousarray(photos[0][:, ::-1])]
    images = np.stack([preprocess(photo, spec.input) for photo in photos])
    expected = _run_torch(model, torch.from_numpy(images))
    worst = 0.0
    offset_factor = FP16_OFFSET_FACTOR if precision == "fp16" else 1.0
    try:
        runs = _run_onnx(data, spec, images)
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"the exported '{spec.name}' does not run in batches of 1 and {len(images)} "
            f"({reason}); nothing was written"
        ) from error
    for actual in runs:
        score, offset = _difference(spec, actual, expected)
        if not (score <= tolerance and offset <= tolerance) and precision == "fp32":
            rounding = _rounding_error(model, images, expected)
            tolerance = max(tolerance, ROUNDING_FACTOR * rounding)
        # Negated, so that NaN fails.
        if not (score <= tolerance and offset <= tolerance * offset_factor):
            text = (
                f"the exported '{spec.name}' differs from PyTorch by {score:.1e} in a score and "
                f"{offset:.1e} in an offset, more than {tolerance:.0e}"
            )
            if not (force and isfinite(score + offset)):
                raise ModelError(f"{text}; nothing was written{_hint(precision)}")
            _log.warning("%s; it was written nevertheless, compare both with evaluate", text)
        worst = max(worst, score)
    return worst


def _hint(precision: str) -> str:
    """Return what to do about a difference; that of FP16 shrinks as a network is trained."""
    if precision == "fp32":
        return ""
    return ": train the network further, use `precision` fp32, or set `force` to write it anyway"


def _run_torch(model: SSD, images: Tensor) -> tuple[Array, Array]:
    with torch.no_grad():
        scores, offsets = model(images)
    return scores.numpy(), offsets.numpy()


def _difference(
    spec: ModelSpec, actual: tuple[Array, Array], expected: tuple[Array, Array]
) -> tuple[float, float]:
    """Return the maximum difference of a probability and the maximum relative one of an offset."""
    probabilities = PostProcessor(spec).activate
    score = max(
        _max_abs(probabilities(a) - probabilities(e))
        for a, e in zip(actual[0], expected[0], strict=True)
    )
    return score, _max_abs((actual[1] - expected[1]) / (1 + np.abs(expected[1])))


def _rounding_error(model: SSD, images: Array, outputs: tuple[Array, Array]) -> float:
    """Return the error of PyTorch's FP32 outputs against FP64.

    In networks with poor normalization, such as untrained ones, rounding errors grow from layer to
    layer, and no two implementations agree.
    """
    exact = _run_torch(copy.deepcopy(model).double(), torch.from_numpy(images).double())
    error = max(_difference(model.spec, outputs, exact))
    return error if np.isfinite(error) else 0.0


def _run_onnx(data: bytes, spec: ModelSpec, images: Array) -> list[tuple[Array, Array]]:
    """Run N images through an ONNX model, one by one and in one batch.

    Returns:
        N × P × C scores and N × P × 4 offsets of both runs.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def run(batch: Array) -> list[Array]:
        return [np.asarray(head) for head in session.run(OUTPUT_NAMES, {spec.input.name: batch})]

    singles = [run(images[k : k + 1]) for k in range(len(images))]
    one_by_one = [np.concatenate(parts) for parts in zip(*singles, strict=True)]
    together = run(images)
    return [(one_by_one[0], one_by_one[1]), (together[0], together[1])]


def _max_abs(difference: Array) -> float:
    """Return the maximum absolute value; NaN if any value is NaN."""
    return float(np.max(np.abs(difference), initial=0.0))
