"""Local files behind a text: `~`, `file:` URLs, standard input, folders and globs."""

from __future__ import annotations

import glob
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

from realtime_ssd.core.errors import UsageError, redact
from realtime_ssd.sources.formats import IMAGE_SUFFIXES, VIDEO_SUFFIXES

__all__ = [
    "find_files",
    "is_camera_device",
    "is_pattern",
    "local_path",
    "natural_key",
    "without_file_scheme",
]

_FILE_URL = re.compile(r"^file:(?://(?P<host>[^/]*))?(?P<path>/.*)$", re.IGNORECASE)
_LOCAL_HOSTS = ("", "localhost", "127.0.0.1")
_VIDEO4LINUX = 81  # major number of camera devices


def without_file_scheme(text: str) -> str:
    """Return the path of a `file:` URL, decoded; any other text unchanged.

    Args:
        text: A source. "-" is standard input.

    Raises:
        UsageError: If the URL names another computer, or standard input is a terminal.

    Example:
        >>> without_file_scheme("file:///home/me/my%20clip.mp4")
        '/home/me/my clip.mp4'
    """
    if text in ("-", "/dev/stdin", "/dev/fd/0"):
        return _standard_input()
    match = _FILE_URL.match(text)
    if match is None:
        is_relative = text.startswith("file:") and not _exists(text)
        return text.removeprefix("file:") if is_relative else text
    if (match["host"] or "").lower() not in _LOCAL_HOSTS:
        raise UsageError(
            f"'{redact(text)}' is a file on another computer; mount its folder and use the path, "
            "or use an http:// URL"
        )
    path = match["path"]
    if _exists(path):
        return path  # was not encoded
    path = unquote(path)
    return path if _exists(path) else unquote(re.split(r"[?#]", match["path"])[0])


def _standard_input() -> str:
    if sys.stdin is None or sys.stdin.closed:
        raise UsageError("standard input is closed; pipe a video into it, or use a file")
    if sys.stdin.isatty():
        raise UsageError(
            "standard input is a terminal; pipe a video into it, as in "
            "'cat clip.mp4 | realtime-ssd -'"
        )
    return "/dev/stdin"


def local_path(text: str) -> Path:
    """Return the path that a text means: a file of this very name, else with `~` expanded."""
    if not _exists(text):
        try:
            return Path(text).expanduser()
        except RuntimeError:  # there is no such user, or no home folder
            pass
    return Path(text)


def _exists(path: str) -> bool:
    """Return whether a path exists; a name that no file can have does not."""
    try:
        return os.path.lexists(path)
    except (OSError, ValueError):
        return False


def is_pattern(path: Path) -> bool:
    """Return whether a path is a glob rather than the name of a file or folder."""
    return glob.has_magic(str(path)) and not _exists(str(path))


def is_camera_device(path: str) -> bool:
    """Return whether a path is a camera, under whatever name."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) == _VIDEO4LINUX


def natural_key(path: Path) -> list[tuple[int, str]]:
    """Return a key that sorts paths by name, with numbers compared by value (2 before 10)."""
    parts = re.split(r"([0-9]+)", str(path))
    return [(int(part), "") if number % 2 else (0, part) for number, part in enumerate(parts)]


def find_files(path: Path, *, recursive: bool) -> tuple[list[Path], list[Path]]:
    """Find the photos and videos of a folder or of a glob, each ordered by `natural_key`.

    Hidden files and folders are left out, unless a glob names them.

    Args:
        path: Folder or glob; `**` in a glob matches any number of folders.
        recursive: Whether subfolders are searched too: of the folder, or of the folders that match
            the glob.

    Returns:
        The photos and the videos.

    Raises:
        UsageError: If the folder cannot be read.
    """
    found: set[Path] = set()
    if is_pattern(path):
        for item in _matches(path):
            if item.is_dir():
                found.update(_walk(item, recursive=True) if recursive else ())
            else:
                found.add(item)
    else:
        found.update(_walk(path, recursive=recursive))
    files = sorted(found, key=natural_key)
    return _with_suffix(files, IMAGE_SUFFIXES), _with_suffix(files, VIDEO_SUFFIXES)


def _matches(pattern: Path) -> list[Path]:
    try:
        return [Path(match) for match in glob.iglob(_escape_existing(pattern), recursive=True)]
    except ValueError:  # no file can have this name
        return []


def _with_suffix(files: Iterable[Path], suffixes: tuple[str, ...]) -> list[Path]:
    return [file for file in files if file.suffix.lower() in suffixes]


def _walk(folder: Path, *, recursive: bool) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise UsageError(f"folder '{error.filename}' cannot be read: {error.strerror}") from None

    for root, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        yield from (Path(root) / name for name in files if not name.startswith("."))


def _escape_existing(path: Path) -> str:
    """Return a glob in which folders that exist under their very name mean themselves."""
    existing = next((parent for parent in path.parents if _exists(str(parent))), Path())
    escaped = glob.escape(str(existing))
    return os.path.join(escaped, path.relative_to(existing)) if existing.parts else str(path)
