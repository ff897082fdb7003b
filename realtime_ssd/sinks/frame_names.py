"""File names of frames, the same for images, labels and annotations of them."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.files import make_folder
from realtime_ssd.core.frames import Frame

__all__ = ["FrameNames", "prepare_folder", "safe_name"]

_MAX_NAME_BYTES = 200  # file systems take 255
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
    """Gives each frame of a run a file name of its own.

    Photos keep their names. Frames of a video or camera are called after it and numbered. Where two
    sources have the same name, or photos of two sources do, the later one is numbered.
    """

    def __init__(self) -> None:
        self._prefixes: dict[str, str] = {}
        self._photos: dict[str, str] = {}

    def __call__(self, frame: Frame) -> str:
        """Return the path of the image of a frame, relative to its folder, with "/"."""
        prefix = self._prefix(frame.source)
        if not frame.name:
            return f"{prefix}_{frame.index:06d}.jpg"
        path = PurePosixPath(frame.name)
        parts = [_clean(part) for part in path.parts]
        name = "/".join(part for part in parts if part) or "photo.jpg"
        if path.suffix.lower() not in _WRITABLE:
            name += ".jpg"
        if self._photos.setdefault(name, frame.source) != frame.source:
            return f"{prefix}/{name}"
        return name

    def _prefix(self, source: str) -> str:
        if source not in self._prefixes:
            last = source.split("?", maxsplit=1)[0].rstrip("/").rsplit("/", 1)[-1]
            stem = name = safe_name(Path(last).stem, "video")
            number = 2
            while name in self._prefixes.values():
                name, number = f"{stem}-{number}", number + 1
            self._prefixes[source] = name
        return self._prefixes[source]


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
