"""A second look at engines that are kept: are they whole, and do they still agree?"""

from __future__ import annotations

from pathlib import Path

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.files import sha256_of
from realtime_ssd.core.spec import read_spec
from realtime_ssd_engines.onnx.verify import Agreement, Gate, compare, onnx_runner, sample_frames
from realtime_ssd_engines.tensorrt.cache import Entry
from realtime_ssd_engines.tensorrt.toolchain import TensorRT, Toolchain

__all__ = ["recheck"]


def recheck(entry: Entry, toolchain: Toolchain | None = None) -> Agreement:
    """Run an engine beside the ONNX file it was made from.

    Args:
        entry: An engine in the cache.
        toolchain: What runs it; TensorRT if None.

    Raises:
        ModelError: If it cannot be compared or is for another machine; the sentence says why.
    """
    tools = toolchain or TensorRT()
    here = tools.machine()
    key, source = entry.key, Path(str(entry.facts.get("source", "")))
    if entry.problem or key is None:
        raise ModelError(f"'{entry.path.name}' cannot be used: {entry.problem}")
    if (key.gpu, key.capability, key.tensorrt, key.driver) != (
        here.gpu,
        here.capability,
        here.tensorrt,
        here.driver,
    ):
        raise ModelError(
            f"'{entry.path.name}' is for {key.gpu} with TensorRT {key.tensorrt} and driver "
            f"{key.driver}, here are {here.gpu}, {here.tensorrt} and {here.driver}"
        )
    if key.precision == "int8":
        raise ModelError(
            f"'{entry.path.name}' is compared while it is built, when its calibration is at hand"
        )
    if not source.is_file() or sha256_of(source) != key.model_sha256:
        raise ModelError(
            f"'{entry.path.name}' cannot be compared: its model '{source}' is gone or has changed"
        )
    spec = read_spec(source)
    with tools.open(entry.path.read_bytes(), spec) as engine:
        return compare(onnx_runner(source, spec), engine, spec, sample_frames(), Gate())
