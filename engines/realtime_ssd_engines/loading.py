"""Opens the GPU backend: for an ONNX file, whose engine is built once, or for an engine file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from realtime_ssd.backends import BackendOptions, with_options
from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.gpu import Gpu, find_gpus
from realtime_ssd.core.spec import ModelSpec, read_spec, spec_from_object
from realtime_ssd_engines.backend import GpuBackend
from realtime_ssd_engines.cuda.compile import require_compiler
from realtime_ssd_engines.cuda.driver import Device
from realtime_ssd_engines.requirements import (
    FLAVOR_NAMES,
    Flavor,
    install_command,
    require_gpu,
)

if TYPE_CHECKING:
    from realtime_ssd_engines.tensorrt.cache import CacheEntry

__all__ = ["open_backend", "open_engine"]

_log = logging.getLogger(__name__)


def open_backend(path: Path, spec: ModelSpec, options: BackendOptions) -> GpuBackend:
    """Load or build the engine of an ONNX file and prepare the GPU for it.

    TensorRT is tried first, then TensorRT-RTX.

    Raises:
        ModelError: If there is no usable GPU, or the engine cannot be built or run.
    """
    require_gpu("run TensorRT engines")
    from realtime_ssd_engines.tensorrt.flavors import explain_flavor, usable_flavors

    number = options.device or 0
    flavors, _ = usable_flavors(number)
    if not flavors:
        raise ModelError(
            f"TensorRT engines are {explain_flavor(number)}; run {install_command()}, or set "
            "`backend` to onnxruntime"
        )
    require_compiler()  # before an engine is built, which takes minutes
    device = Device(number)
    *preferred, last = flavors
    for flavor in preferred:
        try:
            return _open_onnx(device, path, spec, options, flavor)
        except ModelError as error:
            _log.warning("%s cannot be used: %s", FLAVOR_NAMES[flavor], error)
    return _open_onnx(device, path, spec, options, last)


def _open_onnx(
    device: Device, path: Path, spec: ModelSpec, options: BackendOptions, flavor: Flavor
) -> GpuBackend:
    """Open the engine of an ONNX file; build it again if TensorRT cannot load the cached one."""
    from realtime_ssd_engines.tensorrt.compat_runtime import IncompatibleEngineError
    from realtime_ssd_engines.tensorrt.engine_builder import EngineOptions, get_or_build_engine
    from realtime_ssd_engines.tensorrt.toolchain import make_toolchain

    engine_options = EngineOptions(
        options.precision, batch=options.batch, calibration=options.calibration
    )
    toolchain = make_toolchain(flavor, device=options.device or 0)

    def open_plan(choices: EngineOptions) -> GpuBackend:
        engine = get_or_build_engine(path, spec, choices, _log.warning, toolchain=toolchain)
        return _open_plan(device, engine.path, engine.plan, spec, options, flavor)

    try:
        return open_plan(engine_options)
    except IncompatibleEngineError as error:
        _log.warning("%s", error)
        return open_plan(replace(engine_options, rebuild=True))


def _open_plan(
    device: Device,
    path: Path,
    plan: bytes,
    spec: ModelSpec,
    options: BackendOptions,
    flavor: Flavor,
) -> GpuBackend:
    from realtime_ssd_engines.tensorrt.cache import runtime_cache_file
    from realtime_ssd_engines.tensorrt.network import EngineNetwork

    with device:
        network = EngineNetwork(device, plan, spec, flavor, runtime_cache_file(path))
        backend = GpuBackend(device, network, spec, options)
        network.save_runtime_cache()
        return backend


def open_engine(path: Path, options: BackendOptions) -> GpuBackend:
    """Load an engine file with the metadata file next to it, as `realtime-ssd build` writes them.

    Raises:
        UsageError: If it was built for smaller batches, or the thresholds do not fit.
        ModelError: If the file or its metadata is damaged, it does not run on this machine, or it
            was built on another machine and disagrees with its ONNX file on this one.
    """
    from realtime_ssd_engines.tensorrt.cache import read_entry
    from realtime_ssd_engines.tensorrt.first_load import compare_once
    from realtime_ssd_engines.tensorrt.toolchain import make_toolchain

    entry = read_entry(path)
    if entry.problem or entry.key is None:
        raise ModelError(
            f"engine '{path}' cannot be used: {entry.problem}; use a file written by "
            "'realtime-ssd build' with its .json file next to it"
        )
    if options.batch > entry.key.max_batch:
        raise UsageError(
            f"`batch` must be at most {entry.key.max_batch}, for which engine '{path}' was built, "
            f"not {options.batch}; build it again for larger batches"
        )
    stored = _read_entry_spec(entry)
    spec = with_options(stored, options)
    flavor = entry.key.flavor
    require_gpu("run TensorRT engines", flavor, "run the ONNX file of the model")
    require_compiler()
    number = options.device or 0
    _check_capability(path, entry.key.capability.split(","), find_gpus()[number])
    toolchain = make_toolchain(flavor, device=number)
    compare_once(entry, stored, toolchain, _log.warning, trust_model=options.trust_model)
    return _open_plan(Device(number), path, path.read_bytes(), spec, options, flavor)


def _check_capability(path: Path, built_for: Sequence[str], gpu: Gpu) -> None:
    """Check that an engine was built for a GPU.

    Raises:
        ModelError: If not.
    """
    capability = "{}.{}".format(*gpu.capability)
    if capability not in built_for:
        raise ModelError(
            f"engine '{path}' was built for compute capability {' and '.join(built_for)}, but GPU "
            f"'{gpu.name}' has {capability}; build it again for this GPU"
        )


def _read_entry_spec(entry: CacheEntry) -> ModelSpec:
    """Return the specification from an engine's metadata, or else from its ONNX file."""
    if "spec" in entry.metadata:
        if not isinstance(entry.metadata["spec"], dict):
            raise ModelError(
                f"the model specification in the metadata of engine '{entry.path}' is damaged; "
                "build the engine again"
            )
        return spec_from_object(entry.metadata["spec"])
    source = Path(str(entry.metadata.get("source", "")))
    if not source.is_file():
        raise ModelError(
            f"the metadata of engine '{entry.path}' contains no model specification; build the "
            "engine again"
        )
    return read_spec(source)
