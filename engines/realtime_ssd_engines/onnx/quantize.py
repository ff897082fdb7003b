"""INT8 as Q/DQ in the ONNX graph, calibrated on photos; runs on TensorRT and on ONNX Runtime."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.preprocess import preprocess
from realtime_ssd.core.spec import attach_spec, read_spec
from realtime_ssd.sources.images import Images

__all__ = ["quantize"]

MOST = 64
PERCENTILE = 99.999  # of the activations; the few beyond are clipped


def quantize(model: Path, output: Path, photos: Path, *, symmetric: bool = True) -> int:
    """Quantise a model statically: INT8 activations and per-channel INT8 weights.

    Args:
        model: FP32 ONNX file with its contract.
        output: ONNX file to write.
        photos: Folder of images like those the model will see; the first 64 are used.
        symmetric: Whether zero stays in the middle, as TensorRT needs it. ONNX Runtime is twice
            as fast without, because a ReLU then costs nothing.

    Returns:
        Number of photos used.

    Raises:
        UsageError: If there are no photos.
        ModelError: If the model carries no contract.
    """
    from onnxruntime import quantization

    spec = read_spec(model)
    if not photos.is_dir():
        raise UsageError(f"'{photos}' is no folder of photos to calibrate INT8 on")
    tensors = _tensors(photos, model)
    reader = _Reader(spec.input.name, tensors)
    quiet = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # advice on pre-processing that does not apply
    try:
        with redirect_stdout(StringIO()):  # it prints what it does
            quantization.quantize_static(
                str(model),
                str(output),
                reader,
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                weight_type=quantization.QuantType.QInt8,
                **_activations(symmetric),
            )
    finally:
        logging.getLogger().setLevel(quiet)
    made = onnx.load(str(output))
    attach_spec(made, spec)
    onnx.save(made, str(output))
    return len(tensors)


def _activations(symmetric: bool) -> dict[str, Any]:
    """Give the settings of `quantize_static` for the activations."""
    from onnxruntime.quantization import CalibrationMethod, QuantType

    if symmetric:
        return {
            "activation_type": QuantType.QInt8,
            "extra_options": {"ActivationSymmetric": True, "WeightSymmetric": True},
        }
    return {
        "activation_type": QuantType.QUInt8,
        "calibrate_method": CalibrationMethod.Percentile,
        "extra_options": {"WeightSymmetric": True, "CalibPercentile": PERCENTILE},
    }


def _tensors(photos: Path, model: Path) -> list[NDArray[np.float32]]:
    spec = read_spec(model)
    source = Images(photos)
    tensors: list[NDArray[np.float32]] = []
    while len(tensors) < MOST and (frame := source.read()) is not None:
        tensors.append(preprocess(frame.image, spec.input)[None])
    return tensors


class _Reader:
    """Hands the photos to the calibration one by one."""

    def __init__(self, name: str, tensors: list[NDArray[np.float32]]) -> None:
        self._name = name
        self._rest: Iterator[NDArray[np.float32]] = iter(tensors)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Give the next input, or None after the last."""
        tensor = next(self._rest, None)
        return None if tensor is None else {self._name: tensor}
