"""Still images: a single one, those of a folder, or those that match a glob."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from realtime_ssd.core.errors import SourceError, UsageError
from realtime_ssd.core.frames import Frame, Image
from realtime_ssd.core.printable import printable
from realtime_ssd.sources.base import BaseSource, InputLimits, SourceInfo
from realtime_ssd.sources.formats import HEIF_SUFFIXES
from realtime_ssd.sources.image_size import declared_size
from realtime_ssd.sources.paths import find_files, is_pattern

__all__ = ["Images", "load_image"]

_DAMAGED = "cannot be read as an image; it may be damaged"


class Images(BaseSource):
    """Reads images ordered by name, with numbers in names compared by value (2 before 10).

    Args:
        path: Image, folder or glob; `**` in a glob matches any number of folders.
        recursive: Whether the subfolders of a folder are searched.
        limits: Limits of the source; larger images are skipped like unreadable ones.

    Raises:
        UsageError: If there is no image.
        RealtimeSSDError: If an image needs a package that is not installed.
    """

    def __init__(
        self, path: Path, *, recursive: bool = False, limits: InputLimits | None = None
    ) -> None:
        self._limits = limits or InputLimits()
        self.paths = _find_images(path, recursive=recursive)
        if any(one.suffix.lower() in HEIF_SUFFIXES for one in self.paths):
            from realtime_ssd.sources.heif import check_heif

            check_heif(self.paths)
        self._next = 0
        self._unreadable: list[tuple[str, str]] = []
        self.info = SourceInfo(
            printable(str(path)),
            time_base=Fraction(1),
            frame_count=len(self.paths),
            still=True,
            files=tuple(self.paths),
            names=_unique_names(self.paths),
        )

    def read(self) -> Frame | None:
        """See `Source.read`; unreadable images are skipped and reported after the last one."""
        while self._next < len(self.paths):
            number, path = self._next, self.paths[self._next]
            self._next += 1
            image, problem = load_image(path, self._limits)
            if image is not None:
                source, name = self.info.name, self.info.names[number]
                return Frame(image, number, source, number, Fraction(1), name=name)
            self._unreadable.append((str(path), problem))
        if self._unreadable:
            raise self._unreadable_error()
        return None

    def _unreadable_error(self) -> SourceError:
        count = len(self._unreadable)
        if len(self.paths) == 1:
            path, problem = self._unreadable[0]
            return SourceError(f"'{path}' {problem}")
        shown = [
            path if problem == _DAMAGED else f"{path} ({problem})"
            for path, problem in self._unreadable[:3]
        ]
        more = f" and {count - 3} more" if count > 3 else ""
        return SourceError(
            f"{count} of {len(self.paths)} images cannot be read and were skipped: "
            f"{', '.join(shown)}{more}"
        )


def _find_images(path: Path, *, recursive: bool) -> list[Path]:
    if not path.is_dir() and not is_pattern(path):
        if not path.exists():
            raise UsageError(f"'{path}' does not exist; use an image, a folder or a glob")
        return [path]
    images, videos = find_files(path, recursive=recursive)
    if images:
        return images
    if videos:
        raise UsageError(
            f"'{path}' contains {len(videos)} videos and no image; open each video as a source"
        )
    if path.is_dir():
        deeper = "" if recursive else ", or set `recursive` for its subfolders"
        raise UsageError(f"folder '{path}' contains no photos or videos; use another one{deeper}")
    raise UsageError(f"no photo or video matches '{path}'; check the glob")


def _unique_names(paths: list[Path]) -> tuple[str, ...]:
    """Return the file names; if two are equal, the paths below the deepest common folder."""
    names = tuple(path.name for path in paths)
    if len(set(names)) == len(names):
        return names
    shared = Path(os.path.commonpath([path.parent for path in paths]))
    return tuple(path.relative_to(shared).as_posix() for path in paths)


def _decode(path: Path, data: bytes, limits: InputLimits) -> Image | None:
    if path.suffix.lower() in HEIF_SUFFIXES:
        from realtime_ssd.sources.heif import load_heif

        return load_heif(path, limits)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else image.astype(np.uint8, copy=False)


def load_image(path: Path, limits: InputLimits) -> tuple[Image | None, str]:
    """Read an image as BGR with its EXIF orientation applied.

    Args:
        path: The file.
        limits: What is checked before it is decoded.

    Returns:
        The image; or None, and a clause that says why it cannot be used.
    """
    try:
        data = path.read_bytes()
        size = declared_size(data)
        problem = limits.problem(*size) if size else ""
        if problem:
            return None, problem
        image = _decode(path, data, limits) if data else None
    except OSError as error:
        return None, f"cannot be read: {error.strerror}"
    except cv2.error:
        image = None
    if image is None:
        return None, _DAMAGED
    return image, ""
