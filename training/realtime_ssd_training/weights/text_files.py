"""Text files in the folder of a model."""

from __future__ import annotations

from pathlib import Path

__all__ = ["labels_beside"]

_LABEL_FILES = ("labelmap.txt", "labels.txt")


def labels_beside(path: Path) -> Path | None:
    """Return the label file in the folder of a model, None if there is none."""
    files = [path.with_name(name) for name in (f"{path.stem}.txt", *_LABEL_FILES)]
    return next((file for file in files if file.is_file()), None)
