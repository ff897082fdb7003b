"""Kernels of one model, compiled and loaded on one GPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime_ssd.core.spec import ModelSpec
from realtime_ssd_engines.cuda import kernel_params
from realtime_ssd_engines.cuda.compile import compile_kernel
from realtime_ssd_engines.cuda.driver import Buffer, Device
from realtime_ssd_engines.cuda.kernel_params import DetectBuffers, Precision

__all__ = ["KernelSet"]


class KernelSet:
    """Pre-processing, decoding and NMS of one model.

    Create and use it with the device's context current.

    Args:
        device: The GPU.
        spec: Specification of the model with the thresholds in use.
        boxes: Number of default boxes in the network's outputs.
        types: Precision of the network's "input", "scores" and "offsets".
        classes: Indices of the classes to detect; all except the background by default.
        cache: Folder of compiled kernels; the user's cache by default.

    Raises:
        ModelError: If the kernels cannot be compiled or the model exceeds their limits.
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
        self._input = kernel_params.input_params(spec.input)
        arch = device.gpu.architecture
        detect = kernel_params.detect_settings(spec, types["scores"], types["offsets"])
        cubin = compile_kernel("detect", detect, arch, cache)
        self._select = device.load(cubin, "ssd_select", [kernel_params.DETECT_PARAMS])
        self._suppress = device.load(cubin, "ssd_suppress", [kernel_params.DETECT_PARAMS])
        self._launch_suppress = self._suppress.prepared_async_call
        if device.launches_dependents:  # the kernel waits for `ssd_select` itself
            early = getattr(self._suppress, "launch_dependent", None)
            self._launch_suppress = early or self._launch_suppress
        preprocess = kernel_params.preprocess_settings(spec.input, types["input"])
        cubin = compile_kernel("preprocess", preprocess, arch, cache)
        arguments: list[np.dtype[Any] | str] = ["P", "P", kernel_params.INPUT_PARAMS, "P"]
        self._preprocess = device.load(cubin, "ssd_preprocess", arguments)
        self.class_mask = _upload(device, kernel_params.class_mask(spec, classes))
        try:
            self.default_boxes = _upload(device, spec.boxes.boxes())
        except BaseException:
            self.class_mask.close()
            raise

    def parameters(self, sizes: DetectBuffers, pointers: Mapping[str, int]) -> NDArray[np.void]:
        """Return the parameters of `detect` for a set of buffers (see `kernel_params`)."""
        addresses = {
            "class_mask": self.class_mask.address,
            "default_boxes": self.default_boxes.address,
            **pointers,
        }
        return kernel_params.detect_params(self.spec, self.boxes, sizes, addresses)

    def preprocess(self, sources: int, tables: int, output: int, images: int, stream: Any) -> None:
        """Launch resizing and normalization of a batch.

        Args:
            sources: Device address of `images` rows of `kernel_params.SOURCE`.
            tables: Device address of `images` tables of `kernel_params.input_table`.
            output: Device address of images × 3 × height × width values.
            images: Batch size.
            stream: Stream of the launch.
        """
        size = self.spec.input
        threads, rows = kernel_params.PREPROCESS_THREADS, kernel_params.PREPROCESS_ROWS
        grid = (-(-size.width // threads), -(-size.height // rows), images)
        self._preprocess.prepared_async_call(
            grid, (threads, 1, 1), stream, sources, tables, self._input.tobytes(), output
        )

    def detect(self, parameters: NDArray[np.void], images: int, stream: Any) -> None:
        """Launch decoding and NMS of a batch of raw heads, as two kernels.

        Args:
            parameters: From `parameters`.
            images: Batch size.
            stream: Stream of the launches.
        """
        argument = parameters.tobytes()
        rows = kernel_params.select_rows(self.spec.num_classes)
        blocks = -(-self.boxes // rows)
        self._select.prepared_async_call((blocks, images, 1), (rows, 1, 1), stream, argument)
        block = (kernel_params.SUPPRESS_THREADS, 1, 1)
        grid = (kernel_params.lists_per_image(self.spec), images, 1)
        self._launch_suppress(grid, block, stream, argument)

    def disable_early_launches(self) -> bool:
        """Launch each kernel after the one before it; return whether that is a change."""
        changed = bool(self._launch_suppress != self._suppress.prepared_async_call)
        self._launch_suppress = self._suppress.prepared_async_call
        return changed

    def close(self) -> None:
        """Free the device memory; may be called repeatedly."""
        self.class_mask.close()
        self.default_boxes.close()


def _upload(device: Device, values: NDArray[Any]) -> Buffer:
    """Copy an array into new device memory."""
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
