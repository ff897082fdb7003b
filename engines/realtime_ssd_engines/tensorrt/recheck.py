"""Verifies cached engines against the ONNX files they were built from."""

from __future__ import annotations

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.spec import read_spec
from realtime_ssd_engines.onnx.verify import (
    TOLERANCES,
    ComparisonReport,
    compare,
    onnx_runner,
    synthetic_frames,
)
from realtime_ssd_engines.tensorrt.cache import CacheEntry, EngineKey
from realtime_ssd_engines.tensorrt.first_load import find_reference
from realtime_ssd_engines.tensorrt.toolchain import Target, Toolchain, make_toolchain

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
    if entry.problem or key is None:
        raise ModelError(f"'{name}' cannot be used: {entry.problem}")
    toolchain = toolchain or make_toolchain(key.flavor)
    _check_target(key, name, toolchain.target())
    reference = find_reference(entry)
    if reference is None and key.precision == "int8":
        raise ModelError(
            f"'{name}' is an INT8 engine, which is only compared during the build, when its "
            "calibrated ONNX file exists"
        )
    if reference is None:
        raise ModelError(
            f"'{name}' cannot be compared: its model '{entry.metadata.get('source', '')}' is "
            "missing or has changed"
        )
    spec = read_spec(reference, trust_model=True)  # an engine was built from it
    with toolchain.load(entry.path.read_bytes(), spec) as engine:
        tolerance = TOLERANCES[key.precision]
        return compare(onnx_runner(reference, spec), engine, spec, synthetic_frames(), tolerance)


def _check_target(key: EngineKey, name: str, target: Target) -> None:
    """Check that an engine was built for a GPU and TensorRT of this machine.

    Raises:
        ModelError: If not.
    """
    is_for_gpu = key.gpu == target.gpu and target.capability in key.capability.split(",")
    if not is_for_gpu or key.tensorrt != target.tensorrt:
        raise ModelError(
            f"'{name}' was built for {key.gpu} {key.capability} with TensorRT {key.tensorrt}; this "
            f"machine has {target.gpu} {target.capability} and TensorRT {target.tensorrt}"
        )
