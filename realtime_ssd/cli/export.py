"""`realtime-ssd export`: a trained checkpoint as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from realtime_ssd.frames import Image

__all__ = ["export"]


def export(
    checkpoint: Path,
    *,
    output: Path,
    precision: str = "fp32",
    photos: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Write a trained model as ONNX, compared with PyTorch before it is kept.

    Args:
        checkpoint: File (.safetensors) that `realtime-ssd train` wrote.
        output: ONNX file to write.
        precision: fp32 or fp16.
        photos: Image, folder or glob to compare on; frames of the built-in street by default.
        overwrite: Replace an existing output.
    """
    from realtime_ssd.errors import RealtimeSSDError, UsageError

    if output.exists() and not overwrite:
        raise UsageError(f"'{output}' exists; add --overwrite to replace it")
    try:
        from training.checkpoint import load_model
        from training.export import export_onnx
    except ModuleNotFoundError as error:
        raise RealtimeSSDError(
            f"exporting needs '{error.name}'; install it with pip install 'realtime-ssd[train]'"
        ) from None
    images: list[Image] = []
    if photos is not None:
        from realtime_ssd.sources.images import Images

        source = Images(photos)
        while len(images) < 8 and (frame := source.read()) is not None:
            images.append(frame.image)
    difference = export_onnx(load_model(checkpoint), output, precision, images)
    print(f"{output}: {precision}, probabilities within {difference:.1e} of PyTorch's")
