"""The columns of CSV annotations: found by the names in the header, or by their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["DEFAULT_HEADER", "Columns", "find_columns"]

DEFAULT_HEADER = ("filename", "xmin", "ymin", "xmax", "ymax", "class")

_IMAGE = (
    *("filename", "file_name", "image", "image_path", "path", "file", "image_id", "imageid"),
    *("image_url", "image_name", "image_filename", "img_path", "img", "filepath", "file_path"),
)
# Open Images has machine ids in LabelName and, where both exist, names in ClassName.
_LABEL = (
    *("class", "label", "class_name", "classname", "labelname", "label_name", "category"),
    *("category_name", "name"),
)
_CORNERS = (
    ("xmin", "x_min", "x1", "left", "bbox_x1", "bbox_xmin"),
    ("ymin", "y_min", "y1", "top", "bbox_y1", "bbox_ymin"),
    ("xmax", "x_max", "x2", "right", "bbox_x2", "bbox_xmax"),
    ("ymax", "y_max", "y2", "bottom", "bbox_y2", "bbox_ymax"),
)
_CORNER_AND_SIZE = (
    ("x", "bbox_x", "bbox_left"),
    ("y", "bbox_y", "bbox_top"),
    ("w", "bbox_width", "bbox_w", "width"),
    ("h", "bbox_height", "bbox_h", "height"),
)
_IMAGE_SIZE = (("image_width", "img_width", "width"), ("image_height", "img_height", "height"))
_FLAGS = (("difficult", "isdifficult"), ("iscrowd", "crowd", "isgroupof"))
_SET = ("set", "split", "subset", "ml_use")
_AUTOML_SETS = frozenset(
    {"train", "training", "validate", "validation", "test", "unassigned", "unassigned_set"}
)
_AUTOML_CELLS = 11


@dataclass(frozen=True, slots=True)
class Columns:
    """Indices of the columns; -1 for missing ones.

    Attributes:
        image: File name.
        label: Class.
        box: x1, y1 and either x2, y2 or width, height; or a single column with all four.
        has_extent: Whether the box ends with width and height.
        size: Width and height of the image.
        flags: Difficult and crowd.
        split: Set that the row belongs to.
    """

    image: int
    label: int
    box: tuple[int, ...]
    has_extent: bool
    size: tuple[int, ...] = (-1, -1)
    flags: tuple[int, ...] = (-1, -1)
    split: int = -1


def find_columns(first: Sequence[str], is_number: Sequence[bool]) -> tuple[Columns | None, int]:
    """Find the columns of a file.

    Args:
        first: Cells of its first row.
        is_number: Whether each cell is a number.

    Returns:
        The columns, None if they cannot be found, and the index of the first row with a box.
    """
    named = _match_header(first)
    if named is not None:
        return named, 1
    if len(first) == _AUTOML_CELLS and first[0].lower() in _AUTOML_SETS:
        # Set, image and class, then four corners as x, y; two of the corners may be empty.
        return Columns(1, 2, (3, 4, 7, 8), has_extent=False, split=0), 0
    default = _match_header(DEFAULT_HEADER)
    if len(first) == len(DEFAULT_HEADER) and (not any(first[1:5]) or all(is_number[1:5])):
        return default, 0
    return None, 0


def _match_header(header: Sequence[str]) -> Columns | None:
    """Return the columns that a header names, or None if one is missing."""
    index_of = {
        cell.lower().replace(" ", "_"): index for index, cell in reversed(list(enumerate(header)))
    }
    box = tuple(_column(index_of, names) for names in _CORNERS)
    has_extent = min(box) < 0
    if has_extent:
        single = _column(index_of, ("bbox", "box"))
        extent = tuple(_column(index_of, names) for names in _CORNER_AND_SIZE)
        box = (single,) if single >= 0 else extent
    image, label = _column(index_of, _IMAGE), _column(index_of, _LABEL)
    if min(image, label, *box) < 0:
        return None
    size = tuple(_column(index_of, names) for names in _IMAGE_SIZE)
    # A column "width" is either the width of the box or that of the image.
    size = tuple(-1 if index in box else index for index in size)
    flags = tuple(_column(index_of, names) for names in _FLAGS)
    return Columns(image, label, box, has_extent, size, flags, _column(index_of, _SET))


def _column(index_of: Mapping[str, int], names: Sequence[str]) -> int:
    return next((index_of[name] for name in names if name in index_of), -1)
