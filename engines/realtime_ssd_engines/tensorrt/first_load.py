"""Compares an engine with ONNX Runtime when it is first loaded on a GPU.

An engine that was built on another machine, or without a GPU, could not be compared there. The
result is recorded in its metadata file, so that it is compared only once on each GPU.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.files import replace_file, sha256_of
from realtime_ssd.core.frames import Image
from realtime_ssd.core.spec import ModelSpec, read_spec
from realtime_ssd_engines.onnx.verify import (
    TOLERANCES,
    ComparisonReport,
    compare,
    onnx_runner,
    synthetic_frames,
)
from realtime_ssd_engines.tensorrt.cache import CacheEntry, EngineKey, reference_file
from realtime_ssd_engines.tensorrt.toolchain import ProgressCallback, Toolchain

__all__ = ["compare_once", "find_reference"]

_log = logging.getLogger(__name__)


def compare_once(
    entry: CacheEntry,
    spec: ModelSpec,
    toolchain: Toolchain,
    progress: ProgressCallback,
    source: Path | None = None,
    frames: Sequence[Image] | None = None,
    *,
    trust_model: bool = False,
) -> None:
    """Compare an engine with ONNX Runtime, unless that was done on this GPU before.

    Args:
        entry: Engine without problems.
        spec: Specification of the model.
        toolchain: Loads the engine.
        progress: Called with a line of text when the comparison starts.
        source: ONNX file of the engine, if it is known to be unchanged.
        frames: BGR images for the comparison; the synthetic street by default.
        trust_model: Whether to run an ONNX file with operators or sizes that SSDs do not need.

    Raises:
        ModelError: If the engine disagrees, now or in an earlier comparison on this GPU, or there
            is no ONNX file to compare it with.
    """
    gpu, passed = toolchain.gpu_name(), _recorded(entry)
    if passed is not None and entry.metadata.get("compared_on", gpu) == gpu:
        if not passed:
            raise _refusal(entry, gpu, "see the comparison in its .json file")
        return
    key = entry.key
    reference = find_reference(entry, source)
    if reference is None or key is None:
        if passed:
            return  # compared on another GPU, and nothing to repeat it with
        raise ModelError(
            f"engine '{entry.path}' was built on another machine and must be compared with ONNX "
            f"Runtime before it is used; copy '{reference_file(entry.path).name}' from that "
            "machine to the same folder"
        )
    progress(f"comparing engine '{entry.path.name}' with ONNX Runtime, once on this GPU")
    read_spec(reference, trust_model=trust_model or reference == source)
    images = synthetic_frames() if frames is None else frames
    with toolchain.load(entry.path.read_bytes(), spec) as engine:
        run = onnx_runner(reference, spec)
        result = compare(run, engine, spec, images, TOLERANCES[key.precision])
    _record(entry.path, result, gpu)
    if not result.passed:
        raise _refusal(entry, gpu, result.summary())


def _recorded(entry: CacheEntry) -> bool | None:
    """Return whether the last comparison passed; None if there was none."""
    report = entry.metadata.get("agreement")
    return report.get("passed") is True if isinstance(report, dict) else None


def _refusal(entry: CacheEntry, gpu: str, reason: str) -> ModelError:
    return ModelError(
        f"engine '{entry.path}' disagrees with its ONNX file on GPU '{gpu}' and is not used: "
        f"{reason}; build it in fp32 with 'realtime-ssd build'"
    )


def _record(path: Path, report: ComparisonReport, gpu: str) -> None:
    """Add the result of a comparison to the metadata file of an engine."""
    file = path.with_suffix(".json")
    try:
        contents: dict[str, Any] = json.loads(file.read_text("utf-8"))
        contents |= {"agreement": report.to_dict(), "compared_on": gpu}
        replace_file(file, json.dumps(contents, indent=1).encode())
    except OSError as error:
        _log.warning(
            "'%s' cannot be written (%s), so the comparison is repeated next time",
            file,
            error.strerror,
        )


def find_reference(entry: CacheEntry, source: Path | None = None) -> Path | None:
    """Return the ONNX file to compare an engine with; None if there is none.

    Args:
        entry: Engine without problems.
        source: ONNX file of the engine, if it is known to be unchanged.

    Raises:
        ModelError: If the file next to the engine is damaged.
    """
    reference = reference_file(entry.path)
    if reference.is_file():
        if sha256_of(reference) != entry.metadata.get("reference_sha256"):
            raise ModelError(
                f"'{reference}' is damaged or belongs to another engine; copy it again, or build "
                "the engine again"
            )
        return reference
    key = entry.key
    if key is None or key.precision == "int8":  # quantized with images that are not stored
        return None
    return source or _unchanged_source(entry, key)


def _unchanged_source(entry: CacheEntry, key: EngineKey) -> Path | None:
    source = Path(str(entry.metadata.get("source", "")))
    unchanged = source.is_file() and sha256_of(source) == key.model_sha256
    return source if unchanged else None
