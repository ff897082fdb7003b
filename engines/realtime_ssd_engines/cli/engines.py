"""`realtime-ssd engines`: lists, verifies and removes the engines in the cache."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cyclopts import App

if TYPE_CHECKING:
    from realtime_ssd_engines.tensorrt.cache import CacheEntry, EngineCache

__all__ = ["app"]

app = App(
    name="engines",
    help="List, verify and remove the TensorRT engines in this machine's cache.",
)


@app.default
@app.command(name="list")
def list_engines() -> None:
    """List the engines and what they were built for."""
    from realtime_ssd.core.printable import printable
    from realtime_ssd_engines.tensorrt.cache import EngineCache

    cache = EngineCache()
    entries = cache.entries()
    for entry in entries:
        size = entry.path.stat().st_size / 2**20
        status = entry.problem or "intact"
        name = printable(entry.path.name)
        print(f"{name}  {size:.1f} MiB  {_description(entry)}  {status}")
    if not entries:
        print(f"no engines in '{cache.folder}'")


def _description(entry: CacheEntry) -> str:
    key = entry.key
    if key is None:
        return "unknown"
    report = entry.metadata.get("agreement")
    share = report.get("share") if isinstance(report, dict) else None
    agreement = "not compared yet"
    if isinstance(share, (int, float)):
        agreement = f"{100 * share:.2f} % agree"
    return (
        f"{key.model} {key.precision} batch {key.max_batch}, {key.gpu} {key.capability}, "
        f"TensorRT {key.tensorrt}, {agreement}"
    )


@app.command
def verify(name: str = "") -> None:
    """Verify the files of engines and, on a GPU, compare their outputs with ONNX Runtime.

    Args:
        name: File name as `list` prints it, or its beginning; all engines by default.
    """
    from realtime_ssd.core.errors import RealtimeSSDError
    from realtime_ssd.core.printable import printable
    from realtime_ssd_engines.requirements import missing_parts
    from realtime_ssd_engines.tensorrt.cache import EngineCache

    entries = _find(EngineCache(), name)
    missing = missing_parts()
    failed = 0
    for entry in entries:
        problem = entry.problem or ("" if missing else _comparison_problem(entry))
        failed += bool(problem)
        print(f"{printable(entry.path.name)}  {problem or 'intact'}")
    if missing:
        print(f"outputs were not compared: missing {', and '.join(missing)}", file=sys.stderr)
    if failed:
        raise RealtimeSSDError(
            f"{failed} of {len(entries)} engines cannot be used; they are rebuilt when needed, or "
            "can be removed with 'realtime-ssd engines remove'"
        )


def _comparison_problem(entry: CacheEntry) -> str:
    """Compare an engine with ONNX Runtime; return why it fails, or ""."""
    from realtime_ssd.core.errors import ModelError
    from realtime_ssd_engines.tensorrt.recheck import recheck

    try:
        report = recheck(entry)
    except ModelError as error:
        return str(error)
    return "" if report.passed else f"disagrees: {report.summary()}"


@app.command
def remove(name: str = "", *, all: bool = False) -> None:  # noqa: A002 - the option's name
    """Remove engines.

    Args:
        name: File name as `list` prints it, or its beginning.
        all: Remove all engines.
    """
    from realtime_ssd.core.errors import UsageError
    from realtime_ssd_engines.tensorrt.cache import EngineCache

    if bool(name) == all:
        raise UsageError("name the engine to remove (see 'realtime-ssd engines'), or set --all")
    cache = EngineCache()
    entries = _find(cache, name)
    for entry in entries:
        cache.remove(entry.path)
    print(f"{len(entries)} engines removed")


def _find(cache: EngineCache, name: str) -> list[CacheEntry]:
    from realtime_ssd.core.errors import UsageError

    entries = [entry for entry in cache.entries() if entry.path.name.startswith(name)]
    if name and not entries:
        raise UsageError(f"no engine '{name}' in '{cache.folder}'; see 'realtime-ssd engines'")
    return entries
