"""`realtime-ssd engines`: list, verify and remove the engines that were built here."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cyclopts import App

if TYPE_CHECKING:
    from realtime_ssd_engines.tensorrt.cache import EngineCache, Entry

__all__ = ["app"]

app = App(
    name="engines",
    help="List, verify and remove the TensorRT engines that were built on this machine.",
)


@app.default
@app.command(name="list")
def list_engines() -> None:
    """List the engines with what they were built for."""
    from realtime_ssd_engines.tensorrt.cache import EngineCache

    cache = EngineCache()
    entries = cache.entries()
    for entry in entries:
        size = entry.path.stat().st_size / 2**20
        print(f"{entry.path.name}  {size:.1f} MiB  {_about(entry)}  {entry.problem or 'intact'}")
    if not entries:
        print(f"no engines in '{cache.folder}'")


def _about(entry: Entry) -> str:
    key = entry.key
    if key is None:
        return "unknown"
    agreement = entry.facts.get("agreement")
    proof = f"{100 * agreement['share']:.2f} % agree" if agreement else "not verified"
    return (
        f"{key.model} {key.precision} batch {key.max_batch}, {key.gpu}, "
        f"TensorRT {key.tensorrt}, driver {key.driver}, {proof}"
    )


@app.command
def verify(name: str = "") -> None:
    """Check engines: their files everywhere, on a GPU also their answers against ONNX Runtime.

    Args:
        name: File name, or the beginning of it, as `list` shows it; all of them by default.
    """
    from realtime_ssd.core.errors import RealtimeSSDError
    from realtime_ssd_engines.requirements import missing_parts
    from realtime_ssd_engines.tensorrt.cache import EngineCache

    cache = EngineCache()
    entries = _find(cache, name)
    missing = missing_parts()
    bad = 0
    for entry in entries:
        problem = entry.problem or ("" if missing else _disagreement(entry))
        bad += bool(problem)
        print(f"{entry.path.name}  {problem or 'intact'}")
    if missing:
        print(
            f"the answers were not compared, because this machine lacks {', and '.join(missing)}",
            file=sys.stderr,
        )
    if bad:
        raise RealtimeSSDError(
            f"{bad} of {len(entries)} engines cannot be used; they are built again when "
            "needed, or removed with 'realtime-ssd engines remove'"
        )


def _disagreement(entry: Entry) -> str:
    """Compare an engine's answers; empty if they agree."""
    from realtime_ssd.core.errors import ModelError
    from realtime_ssd_engines.tensorrt.recheck import recheck

    try:
        found = recheck(entry)
    except ModelError as error:
        return str(error)
    return "" if found.passed else f"disagrees: {found.sentence()}"


@app.command
def remove(name: str = "", *, all: bool = False) -> None:  # noqa: A002 - the option's name
    """Remove engines.

    Args:
        name: File name, or the beginning of it, as `list` shows it.
        all: Remove all of them.
    """
    from realtime_ssd.core.errors import UsageError
    from realtime_ssd_engines.tensorrt.cache import EngineCache

    if bool(name) == all:
        raise UsageError("say which engine to remove (see 'realtime-ssd engines'), or --all")
    cache = EngineCache()
    found = _find(cache, name)
    for entry in found:
        cache.remove(entry.path)
    print(f"{len(found)} engines removed")


def _find(cache: EngineCache, name: str) -> list[Entry]:
    from realtime_ssd.core.errors import UsageError

    found = [entry for entry in cache.entries() if entry.path.name.startswith(name)]
    if name and not found:
        raise UsageError(
            f"there is no engine '{name}' in '{cache.folder}'; see 'realtime-ssd engines'"
        )
    return found
