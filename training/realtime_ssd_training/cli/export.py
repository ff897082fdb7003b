"""`realtime-ssd export`: a trained checkpoint as ONNX."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from realtime_ssd.core.frames import Image

__all__ = ["export"]


PHOTOS = 8
"""Most images that are compared."""


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
        photos: Image, folder or glob to compare on; by default images of the run's own data, or
            frames of the built-in street where these are gone.
        overwrite: Replace an existing output.
    """
    from realtime_ssd.core.errors import RealtimeSSDError, UsageError

    if output.exists() and not overwrite:
        raise UsageError(f"'{output}' exists; set `overwrite` to replace it")
    try:
        from realtime_ssd_training.engine.checkpoint import load_model, read_checkpoint
        from realtime_ssd_training.export import export_onnx, photos_of_run
    except ModuleNotFoundError as error:
        raise RealtimeSSDError(
            f"exporting needs '{error.name}'; install it with pip install 'realtime-ssd[train]'"
        ) from None
    model = load_model(checkpoint)
    if photos is None:
        images, name = photos_of_run(read_checkpoint(checkpoint).metadata)
    else:
        images, name = _read(photos), str(photos)
    difference = export_onnx(model, output, precision, images)
    told = f"{len(images)} images of {name}" if images else "frames of the built-in street"
    print(f"{output}: {precision}, probabilities within {difference:.1e} of PyTorch's on {told}")


def _read(photos: Path) -> list[Image]:
    from realtime_ssd.core.errors import SourceError
    from realtime_ssd.sources.images import Images

    source = Images(photos)
    images: list[Image] = []
    try:
        while len(images) < PHOTOS and (frame := source.read()) is not None:
            images.append(frame.image)
    except SourceError as error:
        if not images:
            raise
        print(error, file=sys.stderr)
    return images
