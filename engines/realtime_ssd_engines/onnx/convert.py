"""ONNX files in another precision: the entry points of the group `realtime_ssd.precisions`."""

from __future__ import annotations

from pathlib import Path

__all__ = ["convert_to_fp16", "convert_to_int8"]


def convert_to_fp16(model: Path, output: Path, photos: Path | None = None) -> None:
    """Write an ONNX file in FP16.

    Args:
        model: ONNX file in FP32.
        output: File to write.
        photos: Not used; FP16 needs no calibration.
    """
    import onnx

    from realtime_ssd_engines.onnx.precision import to_fp16

    onnx.save(to_fp16(onnx.load(str(model))), str(output))


def convert_to_int8(model: Path, output: Path, photos: Path) -> None:
    """Write an ONNX file in INT8 for ONNX Runtime.

    Args:
        model: ONNX file in FP32.
        output: File to write.
        photos: Folder of photos for calibration.
    """
    from realtime_ssd_engines.onnx.quantize import quantize

    quantize(model, output, photos, symmetric=False)
