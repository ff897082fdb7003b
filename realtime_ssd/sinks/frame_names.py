"""File names of frames, the same for images, labels and annotations of them."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.files import make_folder
from realtime_ssd.core.frames import Frame

__all__ = ["FrameNames", "prepare_folder", "safe_name"]

_MAX_NAME_BYTES = 200  # file systems take 255
_NUMBERED = re.compile(r"(.+)_\d{6,}")
_WRITABLE = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def safe_name(text: str, default: str = "unnamed") -> str:
    """Return text as a single file name: letters, digits, "-", "_" and "." remain.

    Example:
        >>> safe_name("traffic light"), safe_name("../x")
        ('traffic-light', '-x')
    """
    short = _clean(text).encode()[:_MAX_NAME_BYTES].decode(errors="ignore")
    return short or default


def _clean(text: str) -> str:
    kept = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in text)
    return kept.lstrip(".")


class FrameNames:
    """Gives each frame of a run a file name of its own, different before the suffix too.

    Photos keep their names. Frames of a video or camera are called after it and numbered. Where a
    name is taken, also by a photo with another suffix or by a numbered frame, the later one gets a
    folder or a number.
    """

    def __init__(self) -> None:
        self._prefixes: dict[str, str] = {}
        self._photos: dict[tuple[str, str], str] = {}
        self._stems: dict[str, str] = {}
        self._numbered: set[str] = set()  # what photos named like numbered frames begin with

    def __call__(self, frame: Frame) -> str:
        """Return the path of the image of a frame, relative to its folder, with "/"."""
        if not frame.name:
            return f"{self._prefix(frame.source)}_{frame.index:06d}.jpg"
        key = frame.source, frame.name
        if key not in self._photos:
            self._photos[key] = self._photo(frame)
        return self._photos[key]

    def _photo(self, frame: Frame) -> str:
        path = PurePosixPath(frame.name)
        parts = [_clean(part) for part in path.parts]
        name = "/".join(part for part in parts if part) or "photo.jpg"
        if path.suffix.lower() not in _WRITABLE:
            name += ".jpg"
        if self._stems.get(_stem(name), frame.source) != frame.source:
            name = f"{self._prefix(frame.source)}/{name}"
        stem, suffix = _stem(name), PurePosixPath(name).suffix
        chosen, number = stem, 2
        while chosen in self._stems or self._is_frame(chosen):
            chosen, number = f"{stem}-{number}", number + 1
        self._stems[chosen] = frame.source
        if match := _NUMBERED.fullmatch(chosen):
            self._numbered.add(match[1])
        return chosen + suffix

    def _is_frame(self, stem: str) -> bool:
        """Return whether a frame of a video may have this name."""
        match = _NUMBERED.fullmatch(stem)
        return match is not None and match[1] in self._prefixes.values()

    def _prefix(self, source: str) -> str:
        if source not in self._prefixes:
            last = source.split("?", maxsplit=1)[0].rstrip("/").rsplit("/", 1)[-1]
            stem = name = safe_name(Path(last).stem, "video")
            number = 2
            while name in self._prefixes.values() or name in self._numbered:
                name, number = f"{stem}-{number}", number + 1
            self._prefixes[source] = name
        return self._prefixes[source]


def _stem(name: str) -> str:
    return name.removesuffix(PurePosixPath(name).suffix)


def prepare_folder(folder: Path, *, overwrite: bool) -> None:
    """Create a folder for results.

    Args:
        folder: The folder.
        overwrite: Whether it may contain files already, which may be replaced.

    Raises:
        UsageError: If it is not empty, or cannot be created.
    """
    make_folder(folder)
    if not overwrite and any(folder.iterdir()):
        raise UsageError(f"folder '{folder}' is not empty; set `overwrite` to write into it")
