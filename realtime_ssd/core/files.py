"""Files that are there whole or not at all, and their checksums."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

__all__ = ["replace_file", "sha256_of"]


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
