"""The kernels of one model, compiled and loaded on one GPU, ready to be put on a stream."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.spec import ModelSpec
from realtime_ssd_engines.cuda import kernel_params as layout
from realtime_ssd_engines.cuda.compile import compile_kernel
from realtime_ssd_engines.cuda.driver import Buffer, Device
from realtime_ssd_engines.cuda.kernel_params import DetectBuffers, Precision

__all__ = ["KernelSet"]

_PREPROCESS_THREADS = 64


class KernelSet:
    """Pre-processing, decoding and NMS of one model.

    Create and use it with the device's context current.

    Args:
        device: The GPU.
        spec: Contract of the model with the thresholds in force.
        boxes: Number of default boxes, as the network's outputs have it.
        types: Precision of the network's "input", "scores" and "offsets".
        classes: Columns of the classes to look for; None for all but the background.
        cache: Folder that keeps compiled kernels; the user's own if None.

    Raises:
        ModelError: If the kernels cannot be compiled or the model is too large for them.
    """

    def __init__(
        self,
        device: Device,
        spec: ModelSpec,
        boxes: int,
        types: Mapping[str, Precision],
        classes: tuple[int, ...] | None = None,
        cache: Path | None = None,
    ) -> None:
        self.spec, self.boxes, self.types = spec, boxes, dict(types)
        self._input = layout.input_params(spec.input)
        arch = device.gpu.architecture
        detect = layout.detect_settings(spec, types["scores"], types["offsets"])
        cubin = compile_kernel("detect", detect, arch, cache)
        self._select = device.load(cubin, "ssd_select", [layout.DETECT_PARAMS])
        self._suppress = device.load(cubin, "ssd_suppress", [layout.DETECT_PARAMS])
        picture = layout.preprocess_settings(spec.input, types["input"])
        cubin = compile_kernel("preprocess", picture, arch, cache)
        arguments: list[np.dtype[Any] | str] = ["P", layout.INPUT_PARAMS, "P"]
        self._preprocess = device.load(cubin, "ssd_preprocess", arguments)
        self.wanted = _constant(device, layout.wanted_bits(spec, classes))
        try:
            self.default_boxes = _constant(device, spec.boxes.boxes())
        except BaseException:
            self.wanted.close()
            raise

    def parameters(self, sizes: DetectBuffers, pointers: Mapping[str, int]) -> NDArray[np.void]:
        """Fill the parameters of `detect` for one set of buffers (see `layout.detect_params`)."""
        given = {
            "wanted": self.wanted.address,
            "default_boxes": self.default_boxes.address,
            **pointers,
        }
        return layout.detect_params(self.spec, self.boxes, sizes, given)

    def preprocess(self, frames: int, output: int, images: int, stream: Any) -> None:
        """Resize and normalise pictures.

        Args:
            frames: Device address of `images` rows of `layout.FRAME_PARAMS`.
            output: Device address of images × 3 × height × width values.
            images: Number of pictures.
            stream: Where to put the work.
        """
        wide = layout.PIXELS * _PREPROCESS_THREADS
        grid = (-(-self.spec.input.width // wide), self.spec.input.height, images)
        block = (_PREPROCESS_THREADS, 1, 1)
        self._preprocess.prepared_async_call(
            grid, block, stream, frames, self._input.tobytes(), output
        )

    def detect(self, parameters: NDArray[np.void], images: int, stream: Any) -> None:
        """Decode and suppress a batch of raw heads in two launches.

        Args:
            parameters: From `parameters`.
            images: Number of images.
            stream: Where to put the work.
        """
        given, classes = parameters.tobytes(), self.spec.num_classes
        rows = layout.select_rows(classes)
        blocks = -(-self.boxes // rows)
        self._select.prepared_async_call((blocks, images, 1), (rows, 1, 1), stream, given)
        block = (layout.SUPPRESS_THREADS, 1, 1)
        self._suppress.prepared_async_call((classes, images, 1), block, stream, given)

    def close(self) -> None:
        """Give the device memory back; may be called any number of times."""
        self.wanted.close()
        self.default_boxes.close()


def _constant(device: Device, values: NDArray[Any]) -> Buffer:
    """Put an array into device memory for good."""
    staging = device.pinned(values.nbytes)
    try:
        buffer = device.buffer(values.nbytes)
        staging.view(values.dtype, values.shape)[...] = values
        stream = device.stream()
        device.copy_in(buffer, staging.bytes[: values.nbytes], stream)
        stream.synchronize()
    finally:
        staging.close()
    return buffer
