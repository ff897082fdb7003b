"""Where each source's pictures go; refuses what would destroy a source or another result."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from realtime_ssd.core.errors import UsageError
from realtime_ssd.sources import SourceInfo

__all__ = ["Target", "check_place", "check_targets", "plan_outputs"]


@dataclass(frozen=True, slots=True)
class Target:
    """What one source is written to.

    Attributes:
        info: The source.
        path: Video file, or folder of photos.
        names: Photos below `path`, in the order of the source; empty for a video.
        folder: Folder to make first, or None.
    """

    info: SourceInfo
    path: Path
    names: tuple[str, ...] = ()
    folder: Path | None = None

    def files(self) -> Iterator[Path]:
        """Give every file that will be written."""
        yield from (self.path / name for name in self.names) if self.names else (self.path,)


def plan_outputs(output: Path, infos: Sequence[SourceInfo]) -> list[Target]:
    """Decide what `--output` means for each source.

    Args:
        output: File, or folder; a folder need not exist yet.
        infos: The sources.

    Raises:
        UsageError: If one file is given for several sources or photos.
    """
    from realtime_ssd.sinks.containers import VIDEO_SUFFIXES
    from realtime_ssd.sources.formats import IMAGE_SUFFIXES

    ending = output.suffix.lower()
    folder = output.is_dir() or not ending
    if not folder and len(infos) > 1:
        if ending in (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES) or output.exists():
            raise UsageError(
                f"'{output}' is one file for {len(infos)} sources; give a folder to --output"
            )
        folder = True
    if folder:
        return _into_folder(output, infos)
    (info,) = infos
    if not (info.still and ending in IMAGE_SUFFIXES):
        return [Target(info, output)]
    if len(info.names) > 1:
        raise UsageError(
            f"'{output}' is one photo for {len(info.names)}; give a folder to --output"
        )
    return [Target(info, output.parent, (output.name,))]


def _into_folder(folder: Path, infos: Sequence[SourceInfo]) -> list[Target]:
    """Keep photos under their own names, in folders of their own where two would be equal."""
    taken: set[str] = set()
    photos = [name for info in infos for name in info.names]
    apart = len(set(photos)) < len(photos)
    targets = []
    for info in infos:
        if not info.still:
            path = folder / f"{_plain(info.name, taken, '.mp4')}.mp4"
            targets.append(Target(info, path, folder=folder))
        elif apart:
            targets.append(Target(info, folder / _plain(info.name, taken), info.names))
        else:
            targets.append(Target(info, folder, info.names))
    return targets


def _plain(name: str, taken: set[str], ending: str = "") -> str:
    """Make a file name of a source's name; sources of the same name get a number."""
    plain = name.rstrip("/").rsplit("/", 1)[-1] or "video"
    stem = Path(plain).stem if ending and Path(plain).suffix.lower() == ending else plain
    stem = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in stem)
    wanted, number = stem, 2
    while wanted in taken:
        wanted, number = f"{stem}-{number}", number + 1
    taken.add(wanted)
    return wanted


def check_targets(
    files: Sequence[Path], infos: Sequence[SourceInfo], *, overwrite: bool = False
) -> None:
    """Refuse to write over a source, twice to one file, over a file, or where nothing can be.

    Args:
        files: Everything that will be written.
        infos: The sources.
        overwrite: Whether existing files may be replaced; a source never is.

    Raises:
        UsageError: If a file may not be written.
    """
    read = {mark for info in infos for file in info.files if (mark := _mark(file))}
    seen: set[str] = set()
    for file in files:
        place = os.path.realpath(file)
        if place in seen:
            raise UsageError(f"'{file}' is given for two results; give each a file of its own")
        seen.add(place)
        mark = _mark(file)
        if mark in read and mark is not None:
            raise UsageError(f"'{file}' is a source; write to another file")
        if file.is_file() and not overwrite:
            raise UsageError(f"'{file}' exists; set `overwrite` to replace it")
        if file.is_dir():
            raise UsageError(f"'{file}' cannot be written: it is a folder")


def check_place(file: Path) -> None:
    """Find out before the work that a file cannot be written after it.

    Raises:
        UsageError: If its folder is not there or nothing can be written into it.
    """
    folder = file.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"'{file}' cannot be written: there is no folder '{folder}'")
    if not os.access(file if file.exists() else folder, os.W_OK):
        raise UsageError(f"'{file}' cannot be written: permission denied")


def _mark(file: Path) -> tuple[int, int] | None:
    """Tell files apart whatever they are called; None for one that is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
