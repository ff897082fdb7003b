"""`realtime-ssd build`: make the TensorRT engine of a model for this machine's GPU."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["build"]

PROFILE_ROUNDS = 50


def build(
    model: str,
    *,
    precision: str = "fp16",
    max_batch: int = 1,
    opt_batch: int | None = None,
    timing_cache: Path | None = None,
    calibration: Path | None = None,
    frames: str | None = None,
    rebuild: bool = False,
    layers: bool = False,
    report: Path | None = None,
    output: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Build, verify and keep a TensorRT engine, so that the first run need not wait for it.

    Args:
        model: Name of a model or ONNX file.
        precision: fp16, fp32 or int8.
        max_batch: Largest batch.
        opt_batch: Batch it is tuned for; the largest by default.
        timing_cache: File with timings of earlier builds, read and written.
        calibration: Folder of photos for int8.
        frames: Folder of photos or video on which the engine is compared with ONNX Runtime; the
            built-in street by default.
        rebuild: Build it even if it is there already.
        layers: Print the layers of the engine with the time each takes.
        report: Write the layers and their times to this JSON file.
        output: Also write the engine, with a note of what it is for beside it, to this file.
        overwrite: Replace existing files.
    """
    from realtime_ssd.core.spec import read_spec
    from realtime_ssd.zoo import find_model
    from realtime_ssd_engines.onnx.verify import frames_of
    from realtime_ssd_engines.tensorrt.build import EngineOptions, obtain
    from realtime_ssd_engines.tensorrt.cache import EngineCache

    path, _ = find_model(model)
    options = EngineOptions(
        precision,
        max_batch,
        opt_batch,
        timing_cache=timing_cache,
        calibration=calibration,
        rebuild=rebuild,
    )
    for file in (output, report):
        _check_free(file, overwrite=overwrite)
    pictures = None if frames is None else frames_of(frames)
    spec = read_spec(path)
    done = obtain(path, spec, options, _tell, pictures)
    if output is not None:
        EngineCache(output.parent).write(done.key, done.plan, done.facts, output)
    print(f"{done.path}: {precision} engine of '{spec.name}', {len(done.plan) / 2**20:.1f} MiB")
    if layers or report is not None:
        from realtime_ssd_engines.tensorrt.layers import measure, table, to_json

        found = measure(done.plan, spec, PROFILE_ROUNDS)
        if layers:
            print(table(found))
        if report is not None:
            EngineCache(report.parent).write_file(report, to_json(found).encode())


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _check_free(file: Path | None, *, overwrite: bool) -> None:
    from realtime_ssd.core.errors import UsageError

    if file is not None and file.exists() and not overwrite:
        raise UsageError(f"'{file}' exists; set `overwrite` to replace it")
