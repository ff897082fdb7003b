"""Output files: checked before the work, written whole or not at all; and checksums."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import BinaryIO, cast

from realtime_ssd.core.errors import UsageError

__all__ = [
    "cache_folder",
    "check_output",
    "make_folder",
    "open_output",
    "replace_file",
    "sha256_of",
]


def check_output(path: Path, *, overwrite: bool = False) -> None:
    """Check before the work that an output file can be written after it.

    A missing folder is fine: it is created when the file is written.

    Args:
        path: File that will be written.
        overwrite: Whether an existing file may be replaced. A device or a pipe may always exist.

    Raises:
        UsageError: If the file exists, is a folder, or cannot be written.
    """
    if path.is_dir():
        raise UsageError(f"'{path}' cannot be written: it is a folder")
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
    """Create a folder for results, with its parents, unless it exists.

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
        overwrite: Whether an existing file may be replaced. A device or a pipe may always exist.

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


def cache_folder(name: str) -> Path:
    """Return the folder `name` in the user's cache of this program; it may not exist yet."""
    from platformdirs import user_cache_path

    return user_cache_path("realtime-ssd") / name


def replace_file(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write a file so that its place always holds either the old or the new one, whole.

    It is written beside its place and then moved there, so that neither a reader nor a full disk
    leaves half of it.

    Args:
        path: Its place.
        data: What it shall hold.
        durable: Whether to wait until the disk has it, so that this holds after a power cut too.

    Raises:
        OSError: If it cannot be written; nothing is left of it.
    """
    # Several processes and threads may write the same file.
    fresh = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with fresh.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def sha256_of(path: Path) -> str:
    """Give the sha256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
