"""Entry points of the group `realtime_ssd.precisions`: convert an ONNX file to FP16 or INT8."""

from __future__ import annotations

from pathlib import Path

__all__ = ["convert_to_fp16", "convert_to_int8"]


def convert_to_fp16(model: Path, output: Path, calibration: Path | None = None) -> None:
    """Write an FP16 copy of an ONNX file.

    Args:
        model: FP32 ONNX file.
        output: File to write.
        calibration: Ignored; FP16 needs no calibration.
    """
    import onnx

    from realtime_ssd_engines.onnx.precision import to_fp16

    onnx.save(to_fp16(onnx.load(str(model))), str(output))


def convert_to_int8(model: Path, output: Path, calibration: Path) -> None:
    """Write an INT8 copy of an ONNX file for ONNX Runtime.

    Args:
        model: FP32 ONNX file.
        output: File to write.
        calibration: Folder of calibration images.
    """
    from realtime_ssd_engines.onnx.quantize import quantize

    quantize(model, output, calibration, symmetric=False)
