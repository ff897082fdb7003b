"""From a trained network to the ONNX file that everything else runs.

The file has raw heads (`scores` N × P × C logits, `offsets` N × P × 4), a dynamic batch, opset 17
and the whole `ModelSpec` in its metadata. It is compared with PyTorch before it takes its place.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from realtime_ssd.core.errors import ModelError, RealtimeSSDError, UsageError
from realtime_ssd.core.files import replace_file
from realtime_ssd.core.frames import Image
from realtime_ssd.core.postprocess import PostProcessor
from realtime_ssd.core.preprocess import preprocess
from realtime_ssd.core.spec import ModelSpec, attach_spec
from realtime_ssd_training.data.joined import open_set
from realtime_ssd_training.data.sample import Dataset
from realtime_ssd_training.models import SSD

__all__ = [
    "OPSET",
    "PRECISIONS",
    "TOLERANCE",
    "export_onnx",
    "photos_of",
    "photos_of_run",
    "to_onnx",
]

OPSET = 17
"""The newest that TensorRT 8.6 reads."""

NAMES = ["scores", "offsets"]
PRECISIONS = ("fp32", "fp16")
TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2}
"""Largest accepted difference of a probability, and of an offset in units of its own size."""

OFFSETS = 2.5
"""How much more an FP16 offset may differ: 0.05 times its variance moves an edge by 1 % of a box.

Among the 98,256 offsets of SSD512 the worst is off by more than 0.02 through plain rounding.
"""

ROUNDING = 10
"""How many times PyTorch's own rounding an FP32 export may differ, where that is more."""

Heads = NDArray[np.float32]


def export_onnx(
    model: SSD, path: Path, precision: str = "fp32", photos: Sequence[Image] = ()
) -> float:
    """Write a network as ONNX once it gives the same answers as in PyTorch.

    Args:
        model: The network; it is put into evaluation mode.
        path: File to write; an older one is replaced only when the new one is right.
        precision: "fp32" or "fp16" (weights and most layers; softmax and L2Norm stay in FP32).
        photos: BGR images to compare with PyTorch on; frames of the built-in street by default.

    Returns:
        The largest difference of a class probability that was seen.

    Raises:
        UsageError: If there is no such precision or the file cannot be written.
        ModelError: If the exported network differs from PyTorch's.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"precision '{precision}' does not exist; choose fp32 or fp16")
    exported = to_onnx(model)
    if precision == "fp16":
        from realtime_ssd_engines.onnx.precision import to_fp16

        exported = to_fp16(exported)
    data = exported.SerializeToString()
    error = _compare(model, data, photos or _street(), TOLERANCE[precision])
    _write(path, data)
    return error


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)
    except OSError as problem:
        raise UsageError(
            f"'{path}' cannot be written ({problem.strerror}); choose another place"
        ) from None


def to_onnx(model: SSD) -> onnx.ModelProto:
    """Translate a network to ONNX with its contract in the metadata.

    Args:
        model: The network; it is put into evaluation mode, on the CPU.

    Returns:
        The checked model.
    """
    model = model.eval().cpu().float()
    spec = replace(model.spec, scores_output="scores", offsets_output="offsets")
    size = spec.input
    example = torch.zeros(2, 3, size.height, size.width)
    batch = {0: "batch"}
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # The newer exporter writes opset 18, which does not come down to 17 for every network.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (example,),
            buffer,  # type: ignore[arg-type]
            input_names=[size.name],
            output_names=NAMES,
            dynamic_axes={size.name: batch, "scores": batch, "offsets": batch},
            opset_version=OPSET,
            dynamo=False,
        )
    exported = onnx.load_model_from_string(buffer.getvalue())
    _name_shapes(exported, spec)
    attach_spec(exported, spec)
    onnx.checker.check_model(exported, full_check=True)
    return exported


def _name_shapes(exported: onnx.ModelProto, spec: ModelSpec) -> None:
    """Say what the heads' shapes are; the exporter leaves their sizes open."""
    for output, columns in zip(exported.graph.output, (spec.num_classes, 4), strict=True):
        sizes = output.type.tensor_type.shape.dim
        sizes[1].dim_value, sizes[2].dim_value = spec.num_boxes, columns


def photos_of_run(facts: Mapping[str, Any]) -> tuple[list[Image], str]:
    """Read some images of the set that a checkpoint was scored or trained on.

    Args:
        facts: What `realtime_ssd_training.engine.checkpoint.Checkpoint.metadata` of the run.

    Returns:
        The images and the name of the set; nothing where the set is no longer there.
    """
    names = (facts.get("recipe") or {}).get("data") or {}
    for name in (names.get("val"), names.get("train")):
        try:
            images = photos_of(open_set(str(name))) if name else []
        except (RealtimeSSDError, AttributeError):
            continue
        if images:
            return images, str(name)
    return [], ""


def photos_of(data: Dataset, most: int = 4) -> list[Image]:
    """Read the first images of a data set to compare an export on."""
    images = []
    for number in range(min(most, len(data))):
        with suppress(RealtimeSSDError):
            images.append(data[number].image)
    return images


def _street() -> list[Image]:
    from realtime_ssd.synthetic import StreetScene

    return [StreetScene(640, 360, seed=seed).render(40) for seed in (5, 6)]


def _compare(model: SSD, data: bytes, photos: Sequence[Image], limit: float) -> float:
    """Run the photos through both, one by one and together.

    Returns:
        The largest difference of a probability.

    Raises:
        ModelError: If a difference is above `limit` or no number, or the file does not run.
    """
    spec = model.spec
    if len(photos) == 1:  # a batch needs two
        photos = [photos[0], np.ascontiguousarray(photos[0][:, ::-1])]
    images = np.stack([preprocess(photo, spec.input) for photo in photos])
    wanted = _heads(model, torch.from_numpy(images))
    worst, room = 0.0, OFFSETS if limit == TOLERANCE["fp16"] else 1.0
    try:
        runs = _run(data, spec, images)
    except Exception as error:  # ONNX Runtime raises classes of its own
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"the exported '{spec.name}' does not run in batches of 1 and {len(images)} "
            f"({reason}); nothing was written"
        ) from error
    for heads in runs:
        score, offset = _difference(spec, heads, wanted)
        if not (score <= limit and offset <= limit) and limit == TOLERANCE["fp32"]:
            limit = max(limit, ROUNDING * _rounding(model, images, wanted))
        if not (score <= limit and offset <= limit * room):
            raise ModelError(
                f"the exported '{spec.name}' differs from PyTorch by {score:.1e} in a score and "
                f"{offset:.1e} in an offset, more than {limit:.0e}; nothing was written"
            )
        worst = max(worst, score)
    return worst


def _heads(model: SSD, images: Tensor) -> tuple[Heads, Heads]:
    with torch.no_grad():
        scores, offsets = model(images)
    return scores.numpy(), offsets.numpy()


def _difference(
    spec: ModelSpec, found: tuple[Heads, Heads], wanted: tuple[Heads, Heads]
) -> tuple[float, float]:
    """Give the largest difference of a probability, and of an offset in units of its own size."""
    probabilities = PostProcessor(spec).activate
    score = max(
        _largest(probabilities(got) - probabilities(want))
        for got, want in zip(found[0], wanted[0], strict=True)
    )
    return score, _largest((found[1] - wanted[1]) / (1 + np.abs(wanted[1])))


def _rounding(model: SSD, images: Heads, wanted: tuple[Heads, Heads]) -> float:
    """Measure how far PyTorch itself is from the exact heads.

    In networks with unfit normalisation, such as untrained ones, rounding grows from layer to
    layer: no two programs agree on them.
    """
    exact = _heads(copy.deepcopy(model).double(), torch.from_numpy(images).double())
    found = max(_difference(model.spec, wanted, exact))
    return found if np.isfinite(found) else 0.0


def _run(data: bytes, spec: ModelSpec, images: Heads) -> list[tuple[Heads, Heads]]:
    """Run N images through a file: one after another, and all at once.

    Returns:
        N × P × C scores and N × P × 4 offsets of both ways.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def heads(part: Heads) -> list[Heads]:
        return [np.asarray(head) for head in session.run(NAMES, {spec.input.name: part})]

    singles = [heads(images[k : k + 1]) for k in range(len(images))]
    one_by_one = [np.concatenate(parts) for parts in zip(*singles, strict=True)]
    together = heads(images)
    return [(one_by_one[0], one_by_one[1]), (together[0], together[1])]


def _largest(difference: Heads) -> float:
    """Give the largest absolute value; NaN if there is one, because it must not pass."""
    return float(np.max(np.abs(difference), initial=0.0))
