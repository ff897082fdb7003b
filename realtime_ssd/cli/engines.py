"""`realtime-ssd engines`: list, verify and remove the engines that were built here."""

from __future__ import annotations

from cyclopts import App

__all__ = ["app"]

app = App(
    name="engines",
    help="List, verify and remove the engines that were built here.",
)


@app.default
@app.command(name="list")
def list_engines() -> None:
    """List the engines with what they were built for."""
    from engines.cache import EngineCache

    cache = EngineCache()
    entries = cache.entries()
    for entry in entries:
        key, size = entry.key, entry.path.stat().st_size / 2**20
        made = (
            f"{key.model} {key.precision} batch {key.max_batch}, {key.gpu}, "
            f"TensorRT {key.tensorrt}, driver {key.driver}"
            if key
            else "unknown"
        )
        print(f"{entry.path.name}  {size:.1f} MiB  {made}  {entry.problem or 'intact'}")
    if not entries:
        print(f"no engines in {cache.folder}")


@app.command
def verify() -> None:
    """Check every engine's file against the note beside it."""
    from engines.cache import EngineCache
    from realtime_ssd.errors import RealtimeSSDError

    entries = EngineCache().entries()
    bad = [entry for entry in entries if entry.problem]
    for entry in entries:
        print(f"{entry.path.name}  {entry.problem or 'intact'}")
    if bad:
        raise RealtimeSSDError(
            f"{len(bad)} of {len(entries)} engines cannot be used; they are built again when "
            "needed, or removed with 'realtime-ssd engines remove'"
        )


@app.command
def remove(name: str = "", *, all: bool = False) -> None:  # noqa: A002 - the option's name
    """Remove engines.

    Args:
        name: File name, or the beginning of it, as `list` shows it.
        all: Remove all of them.
    """
    from engines.cache import EngineCache
    from realtime_ssd.errors import UsageError

    if not name and not all:
        raise UsageError("say which engine to remove (see 'realtime-ssd engines'), or --all")
    cache = EngineCache()
    found = [entry for entry in cache.entries() if all or entry.path.name.startswith(name)]
    if not found and not all:
        raise UsageError(f"there is no engine '{name}' in '{cache.folder}'")
    for entry in found:
        cache.remove(entry.path)
    print(f"{len(found)} engines removed")
