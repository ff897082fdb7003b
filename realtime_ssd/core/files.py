"""Output files, checked before work starts and replaced atomically; user folders; checksums."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, BinaryIO, cast

from realtime_ssd.core.errors import RealtimeSSDError, UsageError

__all__ = [
    "cache_folder",
    "check_folder_not_deleted",
    "check_not_deleted",
    "check_output",
    "data_folder",
    "make_folder",
    "open_output",
    "replace_file",
    "sha256_of",
    "write_output",
]


_STANDARD_INPUT = ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
"""Names of what can only be read."""


def check_output(path: Path, *, overwrite: bool = False) -> None:
    """Check that an output file can be written later; its folder may be missing.

    Args:
        path: File to write.
        overwrite: Whether an existing file may be replaced; devices and pipes may always exist.

    Raises:
        UsageError: If the file exists, is a folder, or cannot be written.
    """
    try:
        _check_output(path, overwrite=overwrite)
    except OSError as error:  # such as a name that is too long
        raise UsageError(f"'{path}' cannot be written: {error.strerror}") from None


def _check_output(path: Path, *, overwrite: bool) -> None:
    if path.is_dir():
        raise UsageError(f"'{path}' cannot be written: it is a folder")
    if str(path) in _STANDARD_INPUT:
        raise UsageError("'-' cannot be written: it is standard input; use the name of a file")
    if path.is_file() and not overwrite:
        raise UsageError(f"'{path}' exists; set `overwrite` to replace it")
    target = path if path.exists() else path.absolute().parent
    while not target.exists():
        target = target.parent
    if target != path and not target.is_dir():
        raise UsageError(f"'{path}' cannot be written: '{target}' is not a folder")
    if not os.access(target, os.W_OK):
        raise UsageError(f"'{path}' cannot be written: permission denied")


def make_folder(folder: Path) -> None:
    """Create a folder and its parents unless it exists.

    Raises:
        UsageError: If it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"folder '{folder}' cannot be created: {error.strerror}") from None


def open_output(path: Path, *, overwrite: bool = False) -> BinaryIO:
    """Create an output file and open it for unbuffered binary writing.

    Args:
        path: File to create.
        overwrite: Whether an existing file may be replaced; devices and pipes may always exist.

    Raises:
        UsageError: If the file exists, is a folder, or cannot be written.
    """
    check_output(path, overwrite=overwrite)
    make_folder(path.absolute().parent)
    try:
        mode = "wb" if overwrite or path.exists() else "xb"
        return cast("BinaryIO", path.open(mode, buffering=0))
    except FileExistsError:  # another process created it since the check
        raise UsageError(f"'{path}' exists; set `overwrite` to replace it") from None
    except OSError as error:
        raise UsageError(f"'{path}' cannot be written: {error.strerror}") from None


def check_not_deleted(file: IO[bytes], path: Path) -> None:
    """Check that an open output file still exists, so that what is written to it is not lost.

    Args:
        file: The open file; devices and pipes may have been deleted.
        path: Its path, for the message.

    Raises:
        RealtimeSSDError: If it was deleted.
    """
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and not status.st_nlink:
        raise RealtimeSSDError(f"'{path}' was deleted while it was written; the run ends")


def check_folder_not_deleted(folder: Path) -> None:
    """Check that a folder that was created at the start of a run still exists.

    Raises:
        RealtimeSSDError: If it was deleted.
    """
    if not folder.is_dir():
        raise RealtimeSSDError(f"folder '{folder}' was deleted while it was written; the run ends")


def cache_folder(name: str) -> Path:
    """Return a folder of this program in the user's cache, such as "backbones" or "engines".

    The environment variable `REALTIME_SSD_` + upper-case `name` overrides it. The folder may not
    exist yet.

    Raises:
        UsageError: If this user has no home folder.
    """
    if override := _folder_override(name):
        return override
    from platformdirs import user_cache_path

    return _user_folder(user_cache_path, name)


def data_folder(name: str) -> Path:
    """Return a folder of this program among the user's data, such as "models".

    The environment variable `REALTIME_SSD_` + upper-case `name` overrides it. The folder may not
    exist yet.

    Raises:
        UsageError: If this user has no home folder.
    """
    if override := _folder_override(name):
        return override
    from platformdirs import user_data_path

    return _user_folder(user_data_path, name)


def _user_folder(find: Callable[[str], Path], name: str) -> Path:
    try:
        return find("realtime-ssd") / name
    except RuntimeError:
        raise UsageError(
            f"this user has no home folder; set HOME, or REALTIME_SSD_{name.upper()} to a folder"
        ) from None


def _folder_override(name: str) -> Path | None:
    value = os.environ.get(f"REALTIME_SSD_{name.upper()}")
    return Path(value) if value else None


def replace_file(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write a file atomically: readers see either the old content or the complete new one.

    A missing folder is created.

    Args:
        path: File to create or replace.
        data: New content.
        durable: Whether to wait until the data is on the disk, so that the file is also complete
            after a power failure.

    Raises:
        OSError: If the file cannot be written; the old one is kept, and no partial file is left.
    """
    if path.exists() and not path.is_file():  # a device or pipe, which must not be replaced
        path.write_bytes(data)
        return
    # Several processes and threads may write the same file.
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_output(path: Path, data: bytes) -> None:
    """Write an output file as a whole, as `replace_file` does.

    Raises:
        RealtimeSSDError: If it cannot be written; nothing of it is left.
    """
    try:
        replace_file(path, data)
    except OSError as error:
        raise RealtimeSSDError(f"'{path}' cannot be written: {error.strerror}") from None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
