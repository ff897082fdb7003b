"""Label maps of TensorFlow's Object Detection API (.pbtxt)."""

from __future__ import annotations

import re
from pathlib import Path

from realtime_ssd.core.errors import UsageError
from realtime_ssd_training.importers.class_names import GAP

__all__ = ["find_label_map", "parse_label_map"]

_ITEM = re.compile(r"\bitem\s*\{([^{}]*)\}")
_FIELD = re.compile(r"\b(id|name|display_name)\s*:\s*(?:(\d+)|\"([^\"]*)\"|'([^']*)')")


def parse_label_map(text: str) -> dict[int, str]:
    """Return the name of each class id; the display name if there is one."""
    names: dict[int, str] = {}
    for body in _ITEM.findall(text):
        fields = {
            key: number or first or second for key, number, first, second in _FIELD.findall(body)
        }
        if fields.get("id", "").isdigit():
            names[int(fields["id"])] = fields.get("display_name") or fields.get("name", "")
    return {number: name for number, name in names.items() if name}


def find_label_map(
    path: Path, columns: int, background: int | None
) -> tuple[tuple[str, ...], str] | None:
    """Return the names in the only label map beside a model, and where they come from.

    Args:
        path: The model.
        columns: Number of score columns.
        background: Column of the background; None if there is none.

    Raises:
        UsageError: If the label map does not fit the model.
    """
    folder = path if path.is_dir() else path.parent
    maps = {}
    for file in sorted(folder.glob("*.pbtxt")):
        names = parse_label_map(file.read_text(encoding="utf-8", errors="replace"))
        if names:
            maps[file] = names
    if len(maps) != 1:
        return None
    file, names = next(iter(maps.items()))
    first = 0 if background is not None else 1
    if max(names) - first >= columns or min(names) < 1:
        raise UsageError(
            f"the label map '{file}' has ids up to {max(names)}, but the model has {columns} score "
            "columns; set `labels` to a file with the names of the model's classes"
        )
    labels = [names.get(column + first, GAP) for column in range(columns)]
    if background is not None:
        labels[0] = "background"
    return tuple(labels), str(file)
