"""Verifies cached engines against the ONNX files they were built from."""

from __future__ import annotations

from pathlib import Path

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.files import sha256_of
from realtime_ssd.core.spec import read_spec
from realtime_ssd_engines.onnx.verify import (
    ComparisonReport,
    compare,
    onnx_runner,
    synthetic_frames,
)
from realtime_ssd_engines.tensorrt.cache import CacheEntry
from realtime_ssd_engines.tensorrt.toolchain import Toolchain, make_toolchain

__all__ = ["recheck"]


def recheck(entry: CacheEntry, toolchain: Toolchain | None = None) -> ComparisonReport:
    """Compare a cached engine with ONNX Runtime again.

    Args:
        entry: Engine in the cache.
        toolchain: Loads the engine; by default that of the flavor that built it.

    Raises:
        ModelError: If the engine cannot be compared or was built for another machine.
    """
    key, name = entry.key, entry.path.name
    source = Path(str(entry.metadata.get("source", "")))
    if entry.problem or key is None:
        raise ModelError(f"'{name}' cannot be used: {entry.problem}")
    toolchain = toolchain or make_toolchain(key.flavor)
    target = toolchain.target()
    built_for = (key.gpu, key.capability, key.tensorrt, key.driver)
    if built_for != (target.gpu, target.capability, target.tensorrt, target.driver):
        raise ModelError(
            f"'{name}' was built for {key.gpu} with TensorRT {key.tensorrt} and driver "
            f"{key.driver}; this machine has {target.gpu}, TensorRT {target.tensorrt} and driver "
            f"{target.driver}"
        )
    if key.precision == "int8":
        raise ModelError(
            f"'{name}' is an INT8 engine, which is only compared during the build, when its "
            "calibrated ONNX file exists"
        )
    if not source.is_file() or sha256_of(source) != key.model_sha256:
        raise ModelError(
            f"'{name}' cannot be compared: its model '{source}' is missing or has changed"
        )
    spec = read_spec(source, trust_model=True)  # an engine was built from it
    with toolchain.load(entry.path.read_bytes(), spec) as engine:
        return compare(onnx_runner(source, spec), engine, spec, synthetic_frames())
