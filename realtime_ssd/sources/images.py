"""Photos: one, a folder of them, or those a glob finds."""

from __future__ import annotations

import glob
import os
import re
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from realtime_ssd.core.errors import SourceError, UsageError
from realtime_ssd.core.frames import Frame, Image
from realtime_ssd.sources.base import BaseSource, SourceInfo

__all__ = ["SUFFIXES", "Images"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2")


class Images(BaseSource):
    """Reads images in the order of their names, numbers by their value (2 before 10).

    Args:
        path: Image, folder or glob. A folder's subfolders are not searched; `**/*.jpg` is.

    Raises:
        UsageError: If there is no image.
    """

    def __init__(self, path: Path) -> None:
        self.paths = _find(path)
        self._next = 0
        self._unreadable: list[str] = []
        self.info = SourceInfo(
            str(path),
            time_base=Fraction(1),
            frame_count=len(self.paths),
            still=True,
            files=tuple(self.paths),
            names=_names(self.paths),
        )

    def read(self) -> Frame | None:
        """See `Source.read`; images that cannot be read are named after the last one."""
        while self._next < len(self.paths):
            number, path = self._next, self.paths[self._next]
            self._next += 1
            image = _load(path)
            if image is not None:
                source, name = self.info.name, self.info.names[number]
                return Frame(image, number, source, number, Fraction(1), name=name)
            self._unreadable.append(str(path))
        if self._unreadable:
            count, bad = len(self._unreadable), self._unreadable
            if len(self.paths) == 1:
                raise SourceError(f"'{bad[0]}' cannot be read as an image; it may be damaged")
            more = f" and {count - 3} more" if count > 3 else ""
            raise SourceError(
                f"{count} of {len(self.paths)} images cannot be read and were left out: "
                f"{', '.join(bad[:3])}{more}"
            )
        return None


def _find(path: Path) -> list[Path]:
    if path.is_dir():
        found = [item for item in path.iterdir() if item.suffix.lower() in SUFFIXES]
        if not found:
            raise UsageError(
                f"folder '{path}' holds no images; give a folder with photos, or each video with "
                "--video FILE"
            )
    elif path.exists():
        found = [path]
    elif any(sign in str(path) for sign in "*?["):
        matches = (Path(item) for item in glob.iglob(str(path), recursive=True))
        found = [item for item in matches if item.suffix.lower() in SUFFIXES]
        if not found:
            raise UsageError(
                f"no image fits '{path}'; check the pattern, and give each video with --video FILE"
            )
    else:
        raise UsageError(f"'{path}' does not exist; give an image, a folder or a pattern")
    return sorted(found, key=_natural)


def _names(paths: list[Path]) -> tuple[str, ...]:
    """Call each picture by its file name, or by its place below the folder they share."""
    short = tuple(path.name for path in paths)
    if len(set(short)) == len(short):
        return short
    shared = Path(os.path.commonpath([path.parent for path in paths]))
    return tuple(path.relative_to(shared).as_posix() for path in paths)


def _natural(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", str(path))
    return [(int(part), "") if part.isdigit() else (0, part) for part in parts]


def _load(path: Path) -> Image | None:
    """Read an image as BGR, turned as its camera says; None if it cannot be."""
    try:
        data = np.fromfile(path, np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    except (OSError, cv2.error):
        return None
    return None if image is None else image.astype(np.uint8, copy=False)
