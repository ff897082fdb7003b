"""Builds and runs an engine of one layer: whether this TensorRT works on this GPU at all."""

from __future__ import annotations

import numpy as np
from realtime_ssd_engines.cuda.driver import Device
from realtime_ssd_engines.requirements import Flavor
from realtime_ssd_engines.tensorrt import compat, compat_runtime
from realtime_ssd_engines.tensorrt.library import library

from realtime_ssd.core.errors import ModelError

__all__ = ["run_smallest_engine"]

VALUES = np.array([[-2.0, -0.5, 0.5, 3.0]], np.float32)


def run_smallest_engine(device: Device, flavor: Flavor) -> None:
    """Build an engine that computes max(x, 0), run it and compare the result.

    Args:
        device: The GPU.
        flavor: Flavor of TensorRT.

    Raises:
        RealtimeSSDError: If the engine cannot be built or run, or its result is wrong.
    """
    with device:
        engine = compat_runtime.load_engine(_build(device, flavor), flavor)
        execution, stream = engine.create_execution_context(), device.stream()
        pinned, buffer = device.pinned(VALUES.nbytes), device.buffer(VALUES.nbytes)
        try:
            values = pinned.view(VALUES.dtype, VALUES.shape)
            values[...] = VALUES
            device.copy_in(buffer, pinned.bytes[: VALUES.nbytes], stream)
            for name in ("x", "y"):
                execution.set_tensor_address(name, buffer.address)
            if not execution.execute_async_v3(stream.handle):
                raise ModelError("TensorRT cannot run its smallest engine on this GPU")
            device.copy_out(pinned.bytes[: VALUES.nbytes], buffer, stream)
            with device.translate_errors("run TensorRT's smallest engine"):
                stream.synchronize()
            if not np.array_equal(values, np.maximum(VALUES, 0)):
                raise ModelError(f"TensorRT's smallest engine computes {values.tolist()}")
        finally:
            del execution
            pinned.close()
            buffer.close()


def _build(device: Device, flavor: Flavor) -> bytes:
    trt = library(flavor)
    capabilities = ["{}.{}".format(*device.gpu.capability)] if flavor == "rtx" else []
    builder, network, config, messages = compat.create_builder(1 << 28, flavor, capabilities)
    tensor = network.add_input("x", trt.float32, VALUES.shape)
    output = network.add_activation(tensor, trt.ActivationType.RELU).get_output(0)
    output.name = "y"
    network.mark_output(output)
    return compat.build_plan(builder, network, config, messages, flavor)
