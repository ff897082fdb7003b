"""From a trained network to the ONNX file that everything else runs.

The file has raw heads (`scores` N × P × C logits, `offsets` N × P × 4), a dynamic batch, opset 17
and the whole `ModelSpec` in its metadata. It is compared with PyTorch before it takes its place.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from realtime_ssd.errors import ModelError, UsageError
from realtime_ssd.frames import Image
from realtime_ssd.preprocess import preprocess
from realtime_ssd.spec import ModelSpec, attach_spec
from training.models import SSD

__all__ = ["OPSET", "PRECISIONS", "TOLERANCE", "export_onnx", "to_onnx"]

OPSET = 17
"""The newest that TensorRT 8.6 reads."""

PRECISIONS = ("fp32", "fp16")
TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2}
"""Largest accepted difference of a probability, and of an offset in units of its own size."""


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
        from engines.precision import to_fp16

        exported = to_fp16(exported)
    data = exported.SerializeToString()
    error = _compare(model, data, photos or _street(), TOLERANCE[precision])
    fresh = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(data)
        os.replace(fresh, path)
    except OSError as problem:
        raise UsageError(
            f"'{path}' cannot be written ({problem.strerror}); choose another place"
        ) from None
    return error


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
            output_names=["scores", "offsets"],
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


def _street() -> list[Image]:
    from realtime_ssd.demo import StreetScene

    return [StreetScene(640, 360, seed=seed).render(40) for seed in (5, 6)]


def _compare(model: SSD, data: bytes, photos: Sequence[Image], limit: float) -> float:
    """Run the photos through both and give the largest difference of a probability."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    spec, worst = model.spec, 0.0
    images = np.concatenate([preprocess(photo, spec.input)[None] for photo in photos])
    with torch.no_grad():
        wanted = [head.numpy() for head in model(torch.from_numpy(images))]
    kind = np.float16 if "float16" in session.get_inputs()[0].type else np.float32
    for k in range(len(images)):
        scores, offsets = session.run(
            ["scores", "offsets"], {spec.input.name: images[k : k + 1].astype(kind)}
        )
        score = _largest(_softmax(scores[0]) - _softmax(wanted[0][k]))
        offset = _largest((offsets[0] - wanted[1][k]) / (1 + np.abs(wanted[1][k])))
        if not max(score, offset) <= limit:
            raise ModelError(
                f"the exported '{spec.name}' differs from PyTorch by {score:.1e} in a score and "
                f"{offset:.1e} in an offset, more than {limit:.0e}; nothing was written"
            )
        worst = max(worst, score)
    return worst


def _largest(difference: NDArray[np.float32]) -> float:
    return float(np.max(np.abs(difference), initial=0.0))


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits.astype(np.float32) - logits.max(axis=1, keepdims=True))
    result: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return result
