"""`realtime-ssd export`: export a trained checkpoint to ONNX."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from realtime_ssd.core.frames import Image

__all__ = ["export"]

MAX_IMAGES = 8
"""Maximum number of images that PyTorch and ONNX are compared on."""


def export(
    checkpoint: Path,
    *,
    output: Path,
    precision: str = "fp32",
    photos: Path | None = None,
    force: bool = False,
    overwrite: bool = False,
) -> None:
    """Export a trained model to ONNX and compare it with PyTorch before it is written.

    Args:
        checkpoint: File (.safetensors) that `realtime-ssd train` wrote.
        output: ONNX file to write.
        precision: fp32 or fp16.
        photos: Image, folder or glob to compare on; by default images of the run's own data, or
            frames of the synthetic street if the data no longer exists.
        force: Write the file although its outputs differ from PyTorch's by more than rounding, as
            those of a barely trained network in fp16 may.
        overwrite: Replace an existing output.
    """
    from realtime_ssd.core.extras import require
    from realtime_ssd.core.files import check_output

    require("train", "torch", "safetensors", purpose="exporting")
    check_output(output, overwrite=overwrite)

    from realtime_ssd_training.export import export_onnx, images_of_run
    from realtime_ssd_training.models.checkpoint import load_model, read_checkpoint

    model = load_model(checkpoint)
    if photos is None:
        images, name = images_of_run(read_checkpoint(checkpoint).metadata)
    else:
        images, name = _read_images(photos), str(photos)
    error = export_onnx(model, output, precision, images, force=force)
    compared = f"{len(images)} images of {name}" if images else "frames of the synthetic street"
    print(f"{output}: {precision}, probabilities within {error:.1e} of PyTorch's on {compared}")


def _read_images(path: Path) -> list[Image]:
    """Read the first images of a source; print the error that ends it early."""
    from realtime_ssd.core.errors import SourceError
    from realtime_ssd.sources.images import Images

    source = Images(path)
    images: list[Image] = []
    try:
        while len(images) < MAX_IMAGES and (frame := source.read()) is not None:
            images.append(frame.image)
    except SourceError as error:
        if not images:
            raise
        print(error, file=sys.stderr)
    return images
