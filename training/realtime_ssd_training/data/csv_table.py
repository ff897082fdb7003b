"""CSV annotations: one row per box, and a folder of images."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from realtime_ssd.core.errors import UsageError
from realtime_ssd_training.data.classes import ClassSelection
from realtime_ssd_training.data.file_dataset import (
    Box,
    FileDataset,
    RawImage,
    RawObject,
    build_file_dataset,
    drop_duplicates,
)
from realtime_ssd_training.data.images import list_images
from realtime_ssd_training.data.sample import Problem

__all__ = ["open_csv"]

_IMAGE = ("filename", "file_name", "image", "image_path", "path", "file", "image_id", "imageid")
_LABEL = ("class", "label", "class_name", "labelname", "category", "name", "classname")
_CORNERS = (
    ("xmin", "x_min", "x1", "left", "bbox_x1"),
    ("ymin", "y_min", "y1", "top", "bbox_y1"),
    ("xmax", "x_max", "x2", "right", "bbox_x2"),
    ("ymax", "y_max", "y2", "bottom", "bbox_y2"),
)
_CORNER_AND_SIZE = (
    ("x", "bbox_x", "bbox_left"),
    ("y", "bbox_y", "bbox_top"),
    ("w", "bbox_width", "bbox_w", "width"),
    ("h", "bbox_height", "bbox_h", "height"),
)
_IMAGE_SIZE = (("image_width", "img_width", "width"), ("image_height", "img_height", "height"))
_FLAGS = (("difficult", "isdifficult"), ("iscrowd", "crowd", "isgroupof"))
_TRUE = frozenset({"1", "1.0", "true", "yes"})
_DEFAULT_HEADER = ("filename", "xmin", "ymin", "xmax", "ymax", "class")


@dataclass(frozen=True, slots=True)
class _Columns:
    """Indices of the columns; -1 for missing ones.

    Attributes:
        image: File name.
        label: Class.
        box: x1, y1 and either x2, y2 or width, height.
        has_extent: Whether `box` ends with width and height.
        size: Width and height of the image.
        flags: Difficult and crowd.
    """

    image: int
    label: int
    box: tuple[int, ...]
    has_extent: bool
    size: tuple[int, ...]
    flags: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Row:
    file: str
    item: RawObject | None
    size: tuple[int, int] | None


def open_csv(name: str, path: Path, folder: Path, selection: ClassSelection) -> FileDataset:
    """Open a CSV file with one row per box and the folder of its images.

    The header row names the columns, in any order and case; other columns are ignored:

    - the image: filename, file_name, image, image_path, path, file or image_id. A path is looked
      up relative to the folder, then by its last component, then by that component with any image
      suffix;
    - the class: class, label, class_name, LabelName, category, name or classname;
    - the box in pixels from 0: xmin, ymin, xmax, ymax (or x1, y1, x2, y2; left, top, right,
      bottom), or x, y, w, h (or x, y, width, height; bbox_x, ...). If no value of the whole file
      exceeds 1, all are fractions of the image, as in Open Images;
    - optionally width and height (or image_width, image_height) of the image, which are compared
      with the file, and difficult, iscrowd or IsGroupOf.

    This covers the CSV files of TensorFlow's object detection tools. Without a header the columns
    are `path,x1,y1,x2,y2,class`, as RetinaNet's tools write them. A row without box and class is
    an image without objects; images without a row are not part of the dataset. Columns are
    separated by commas, semicolons or tabs.

    Args:
        name: Specification the dataset is opened with.
        path: The CSV file, UTF-8.
        folder: Folder that file names are relative to.
        selection: Classes to read; by default all names that occur, sorted.

    Raises:
        UsageError: If a file is missing, or columns or values are invalid.
    """
    if not folder.is_dir():
        raise UsageError(f"the image folder '{folder}' does not exist; use csv:FILE:IMAGES")
    lines = list(_read_lines(path))
    if not lines:
        raise UsageError(
            f"'{path}' is empty; it needs one row per box: {','.join(_DEFAULT_HEADER)}"
        )
    columns, first = _find_columns(lines[0][1], path)
    problems: list[Problem] = []
    rows = list(_parse_rows(lines[first:], columns, path, problems))
    raw_images = _group_by_image(rows, _ImageFinder(folder), _are_fractions(rows), problems)
    labels = sorted({item.label for raw in raw_images for item in raw.objects})
    return build_file_dataset(name, raw_images, selection.map_classes(labels), problems)


def _read_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank with their line numbers."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            delimiter = max(",;\t", key=header.count)
            reader = csv.reader(file, delimiter=delimiter)
            for row in reader:
                cells = [cell.strip() for cell in row]
                if any(cells):
                    yield reader.line_num, cells
    except OSError as error:
        raise UsageError(
            f"the table '{path}' cannot be read ({error.strerror}); use csv:FILE[:IMAGES]"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"'{path}' is not a UTF-8 CSV file ({error}); export it again") from None


def _find_columns(header: list[str], path: Path) -> tuple[_Columns, int]:
    """Return the columns, and the index of the first row with a box."""
    named = _match_header(header)
    if named is not None:
        return named, 1
    default = _match_header(_DEFAULT_HEADER)
    if default is not None and len(header) == len(_DEFAULT_HEADER):
        sides = header[1:5]
        if not any(sides) or all(_number(cell) is not None for cell in sides):
            return default, 0
    raise UsageError(
        f"the header of '{path}' is invalid: {','.join(header)[:120]}; name the columns "
        f"{','.join(_DEFAULT_HEADER)}"
    )


def _match_header(header: Sequence[str]) -> _Columns | None:
    """Return the columns that a header names, or None if one is missing."""
    index_of = {
        cell.lower().replace(" ", "_"): index for index, cell in reversed(list(enumerate(header)))
    }
    box = tuple(_column(index_of, names) for names in _CORNERS)
    has_extent = min(box) < 0
    if has_extent:
        box = tuple(_column(index_of, names) for names in _CORNER_AND_SIZE)
    image, label = _column(index_of, _IMAGE), _column(index_of, _LABEL)
    if min(image, label, *box) < 0:
        return None
    size = tuple(_column(index_of, names) for names in _IMAGE_SIZE)
    # A column "width" is either the width of the box or that of the image.
    size = tuple(-1 if index in box else index for index in size)
    flags = tuple(_column(index_of, names) for names in _FLAGS)
    return _Columns(image, label, box, has_extent, size, flags)


def _column(index_of: Mapping[str, int], names: Sequence[str]) -> int:
    return next((index_of[name] for name in names if name in index_of), -1)


def _parse_rows(
    lines: Sequence[tuple[int, list[str]]],
    columns: _Columns,
    path: Path,
    problems: list[Problem],
) -> Iterator[_Row]:
    """Yield the valid rows and report the others, grouped by defect."""
    defects: dict[str, list[int]] = {}
    for number, cells in lines:
        try:
            yield _parse_row(cells, columns)
        except ValueError as error:
            defects.setdefault(str(error), []).append(number)
    for defect, numbers in defects.items():
        text = f"{len(numbers)} rows {defect}, first in line {numbers[0]}; they were skipped"
        problems.append(Problem(str(path), text))


def _parse_row(cells: list[str], columns: _Columns) -> _Row:
    def cell(index: int) -> str:
        return cells[index] if 0 <= index < len(cells) else ""

    file, label = cell(columns.image), cell(columns.label)
    if not file:
        raise ValueError("without an image")
    sizes = [_number(cell(index)) or 0 for index in columns.size]
    size = (int(sizes[0]), int(sizes[1])) if min(sizes) > 0 and isfinite(sum(sizes)) else None
    sides = [cell(index) for index in columns.box]
    if not any(sides) and not label:
        return _Row(file, None, size)
    values = [_number(side) for side in sides]
    if not label or None in values:
        raise ValueError("without a class or four numbers")
    x, y, right, bottom = (value or 0.0 for value in values)
    box: Box = (x, y, x + right, y + bottom) if columns.has_extent else (x, y, right, bottom)
    difficult, crowd = (cell(index).lower() in _TRUE for index in columns.flags)
    return _Row(file, RawObject(label, box, difficult, crowd), size)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _are_fractions(rows: Sequence[_Row]) -> bool:
    """Return whether boxes are fractions: no value of the whole file exceeds 1."""
    values = [value for row in rows if row.item for value in row.item.box if isfinite(value)]
    return bool(values) and max(values) <= 1.0


def _group_by_image(
    rows: Sequence[_Row], finder: _ImageFinder, fractions: bool, problems: list[Problem]
) -> list[RawImage]:
    groups: dict[str, list[_Row]] = {}
    for row in rows:
        groups.setdefault(row.file, []).append(row)
    raw_images = []
    for file, group in groups.items():
        path = finder.find(file)
        objects, dropped = drop_duplicates([row.item for row in group if row.item is not None])
        if dropped:
            problems.append(Problem(str(path), f"{dropped} duplicate rows were skipped"))
        size = next((row.size for row in group if row.size), None)
        raw_images.append(RawImage(path, file, objects, size, fractions=fractions))
    return raw_images


class _ImageFinder:
    """Locates the image files that a table names.

    Args:
        folder: Folder that names are relative to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._by_stem: dict[str, Path] | None = None

    def find(self, text: str) -> Path:
        """Return the path of a file; for a missing file, the path where it is expected."""
        name = text.replace("\\", "/")
        for path in (self._folder / name, self._folder / Path(name).name):
            if path.is_file():
                return path
        if self._by_stem is None:
            self._by_stem = {path.stem: path for path in reversed(list_images(self._folder))}
        return self._by_stem.get(Path(name).name, self._folder / name)
