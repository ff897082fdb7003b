"""`realtime-ssd build`: builds the TensorRT engine of a model for the GPU of this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from realtime_ssd.core.spec import ModelSpec
    from realtime_ssd_engines.tensorrt.toolchain import Toolchain

__all__ = ["build"]

PROFILE_ROUNDS = 50


def build(
    model: str,
    *,
    precision: str = "fp16",
    flavor: Literal["tensorrt", "rtx"] | None = None,
    compute_capability: str = "",
    batch: int = 1,
    opt_batch: int | None = None,
    timing_cache: Path | None = None,
    calibration: Path | None = None,
    frames: str | None = None,
    rebuild: bool = False,
    device: int | None = None,
    trust_model: bool = False,
    layers: bool = False,
    report: Path | None = None,
    output: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Build, verify and cache a TensorRT engine, so that the first run does not have to.

    Args:
        model: Model name or ONNX file.
        precision: fp16, fp32 or int8.
        flavor: tensorrt, or rtx for GeForce and RTX cards, which needs no GPU for the build; by
            default the one that runs on this machine.
        compute_capability: Compute capabilities to build for, such as 8.6,8.9 (rtx only); by
            default that of this machine's GPU.
        batch: Largest number of frames that pass through the network together.
        opt_batch: Batch size to optimize for; the largest by default.
        timing_cache: File with TensorRT's timing cache, read and updated.
        calibration: Folder of images for int8.
        frames: Folder of images or video on which the engine is compared with ONNX Runtime; the
            synthetic street by default.
        rebuild: Build even if the engine is in the cache.
        device: Number of the GPU to build for, from 0; the first by default.
        trust_model: Accept a graph with operators or sizes that SSDs do not need.
        layers: Print the layers of the engine with their times.
        report: Write the layers and their times to this JSON file.
        output: Also write the engine and its metadata file here; an engine for another machine also
            needs the .reference.onnx file next to it there.
        overwrite: Replace existing files.
    """
    from realtime_ssd.backends import check_device
    from realtime_ssd.core.printable import printable
    from realtime_ssd.core.spec import read_spec
    from realtime_ssd.zoo import find_model
    from realtime_ssd_engines.onnx.verify import read_frames
    from realtime_ssd_engines.tensorrt.cache import EngineCache
    from realtime_ssd_engines.tensorrt.engine_builder import EngineOptions, get_or_build_engine
    from realtime_ssd_engines.tensorrt.flavors import usable_flavors
    from realtime_ssd_engines.tensorrt.toolchain import make_toolchain

    path, _ = find_model(model)
    options = EngineOptions(
        precision,
        batch,
        opt_batch,
        timing_cache=timing_cache,
        calibration=calibration,
        rebuild=rebuild,
    )
    if device is not None:
        check_device(device)
    capabilities = [item.strip() for item in compute_capability.split(",") if item.strip()]
    usable, _ = usable_flavors(device or 0)
    flavor = flavor or (usable[0] if usable else "tensorrt")
    toolchain = make_toolchain(flavor, capabilities, device or 0)
    _check_outputs(path, output, report, toolchain, layers=layers, overwrite=overwrite)
    images = None if frames is None else read_frames(frames)
    spec = read_spec(path, trust_model=trust_model)
    engine = get_or_build_engine(path, spec, options, _print_progress, images, toolchain)
    if output is not None:
        reference = None if engine.reference is None else engine.reference.read_bytes()
        cache = EngineCache(output.parent)
        cache.write(engine.key, engine.plan, engine.metadata, output, reference)
    size = len(engine.plan) / 2**20
    print(f"{printable(str(engine.path))}: {precision} engine of '{spec.name}', {size:.1f} MiB")
    if layers or report is not None:
        _profile(engine.plan, spec, toolchain, report, layers=layers)


def _profile(
    plan: bytes, spec: ModelSpec, toolchain: Toolchain, report: Path | None, *, layers: bool
) -> None:
    """Measure the layers of an engine; print them and write them to a file."""
    from realtime_ssd_engines.tensorrt.cache import EngineCache
    from realtime_ssd_engines.tensorrt.layers import format_table, profile_engine, to_json

    profile = profile_engine(plan, spec, PROFILE_ROUNDS, toolchain)
    if layers:
        print(format_table(profile))
    if report is not None:
        EngineCache(report.parent).write_file(report, to_json(profile).encode())


def _check_outputs(
    model: Path,
    output: Path | None,
    report: Path | None,
    toolchain: Toolchain,
    *,
    layers: bool,
    overwrite: bool,
) -> None:
    """Check the engine, the files next to it and the report before the build.

    Raises:
        UsageError: If a file is the model or another output, exists, or cannot be written, or the
            layers of an engine for another machine are to be measured.
    """
    from realtime_ssd.cli.outputs import check_output_files
    from realtime_ssd.core.errors import UsageError
    from realtime_ssd_engines.tensorrt.cache import reference_file

    runs_here = toolchain.can_run()
    if not runs_here and (layers or report is not None):
        raise UsageError(
            "`layers` and `report` measure the engine, which cannot run on this machine; leave "
            "them out"
        )
    files: list[Path] = []
    if output is not None:
        files = [output, output.with_suffix(".json"), reference_file(output)]
    if report is not None:
        files.append(report)
    if any(file.resolve() == model.resolve() for file in files):
        raise UsageError(f"'{model}' is the model; write to another file")
    check_output_files(files, (), overwrite=overwrite)


def _print_progress(line: str) -> None:
    from realtime_ssd.core.printable import printable

    print(printable(line), file=sys.stderr, flush=True)
