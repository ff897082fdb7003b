"""`realtime-ssd build`: make the TensorRT engine of a model for this machine's GPU."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["build"]


def build(
    model: str,
    *,
    precision: str = "fp16",
    max_batch: int = 1,
    opt_batch: int | None = None,
    timing_cache: Path | None = None,
    calibration: Path | None = None,
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
        output: Also write the engine to this file.
        overwrite: Replace an existing output.
    """
    from engines.build import EngineOptions, ensure_engine
    from realtime_ssd.errors import RealtimeSSDError, UsageError
    from realtime_ssd.spec import read_spec
    from realtime_ssd.zoo import find_model

    path, _ = find_model(model)
    options = EngineOptions(
        precision,
        max_batch,
        opt_batch,
        timing_cache=timing_cache,
        calibration=calibration,
    )
    if output is not None and output.exists() and not overwrite:
        raise UsageError(f"'{output}' exists; add --overwrite to replace it")
    plan = ensure_engine(
        path, read_spec(path), options, lambda line: print(line, file=sys.stderr, flush=True)
    )
    if output is not None:
        try:
            output.write_bytes(plan)
        except OSError as error:
            raise RealtimeSSDError(f"'{output}' cannot be written: {error.strerror}") from None
    print(f"{path}: {precision} engine ready, {len(plan) / 2**20:.1f} MiB")
