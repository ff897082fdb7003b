"""CSV annotations: one row per box, and a folder of images."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from realtime_ssd.core.errors import UsageError
from realtime_ssd_training.data.csv_columns import DEFAULT_HEADER, Columns, find_columns
from realtime_ssd_training.data.image_finder import ImageFinder, split_names
from realtime_ssd_training.data.raw_dataset import (
    Box,
    RawDataset,
    RawImage,
    RawObject,
    drop_duplicates,
    parse_number,
)
from realtime_ssd_training.data.sample import Problem
from realtime_ssd_training.data.via import is_via_header, read_via_csv

__all__ = ["read_csv"]

_TRUE = frozenset({"1", "1.0", "true", "yes"})
_MAX_FRACTION = 1.25
"""Largest coordinate of a box that counts as fractions: rounding and padding exceed 1 a little."""


@dataclass(frozen=True, slots=True)
class _Row:
    file: str
    item: RawObject | None
    size: tuple[int, int] | None
    split: str


def read_csv(name: str, path: Path, folder: Path, split: str = "") -> RawDataset:
    """Read a CSV file with one row per box and the folder of its images.

    The header row names the columns, in any order and case; other columns are ignored:

    - the image: filename, file_name, image, image_path, image_url, path, file or image_id;
      `ImageFinder` describes how it is located;
    - the class: class, label, class_name, ClassName, LabelName, category or name;
    - the box in pixels from 0: xmin, ymin, xmax, ymax (or x1, y1, x2, y2; left, top, right,
      bottom), or x, y, w, h (or x, y, width, height; bbox_x, ...), or bbox with x, y, width and
      height in brackets. If most boxes have no value above 1.25, all are fractions of the image,
      as in Open Images;
    - optionally width and height (or image_width, image_height) of the image, which are compared
      with the file, difficult, iscrowd or IsGroupOf, and set or split.

    This covers the CSV files of TensorFlow's object detection tools and of jetson-inference.
    Without a header the columns are `path,x1,y1,x2,y2,class`, as RetinaNet's tools write them, or
    those of Google's AutoML. VIA's CSV export is recognized by its header. A row without box and
    class is an image without objects; images without a row are not part of the dataset. Columns
    are separated by commas, semicolons or tabs; with the latter two, numbers may have a decimal
    comma.

    Args:
        name: Specification the dataset is opened with.
        path: The CSV file: UTF-8, UTF-16 with a byte-order mark, or else Windows-1252, which is
            reported.
        folder: Folder that file names are relative to.
        split: Only rows with this set; empty for all rows.

    Raises:
        UsageError: If a file is missing, or columns or values are invalid.
    """
    if not folder.is_dir():
        raise UsageError(f"the image folder '{folder}' does not exist; use csv:FILE:IMAGES")
    problems: list[Problem] = []
    lines = list(_read_lines(path, problems))
    if not lines:
        raise UsageError(f"'{path}' is empty; it needs one row per box: {','.join(DEFAULT_HEADER)}")
    finder = ImageFinder(folder, [split] if split else path.stem.replace("-", "_").split("_"))
    if is_via_header(lines[0][1]):
        return read_via_csv(name, path, (cells for _, cells in lines), finder)
    columns, first = _find_columns(lines[0][1], path)
    rows = list(_parse_rows(lines[first:], columns, path, problems))
    if split:
        rows = _select_split(rows, split, path)
    raw_images = _group_by_image(rows, finder, _are_fractions(rows), problems)
    return RawDataset.with_sorted_classes(name, raw_images, problems)


def _read_lines(path: Path, problems: list[Problem]) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank with their line numbers."""
    try:
        text = _decode(path, problems)
        delimiter = max(",;\t", key=text.partition("\n")[0].count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield reader.line_num, cells
    except OSError as error:
        raise UsageError(
            f"the table '{path}' cannot be read ({error.strerror}); use csv:FILE[:IMAGES]"
        ) from None
    except (UnicodeError, csv.Error) as error:
        raise UsageError(f"'{path}' is not a UTF-8 CSV file ({error}); export it again") from None


def _decode(path: Path, problems: list[Problem]) -> str:
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252")
    problems.append(Problem(str(path), "it is not UTF-8 and was read as Windows-1252"))
    return text


def _find_columns(header: list[str], path: Path) -> tuple[Columns, int]:
    """Return the columns, and the index of the first row with a box."""
    columns, first = find_columns(header, [_number(cell) is not None for cell in header])
    if columns is None:
        raise UsageError(
            f"the header of '{path}' is invalid: {','.join(header)[:120]}; name the columns "
            f"{','.join(DEFAULT_HEADER)}"
        )
    return columns, first


def _parse_rows(
    lines: Sequence[tuple[int, list[str]]],
    columns: Columns,
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


def _parse_row(cells: list[str], columns: Columns) -> _Row:
    def cell(index: int) -> str:
        return cells[index] if 0 <= index < len(cells) else ""

    file, label, split = cell(columns.image), cell(columns.label), cell(columns.split)
    if not file:
        raise ValueError("without an image")
    sizes = [_number(cell(index)) or 0 for index in columns.size]
    size = (int(sizes[0]), int(sizes[1])) if min(sizes) > 0 and isfinite(sum(sizes)) else None
    sides = [cell(index) for index in columns.box]
    if not any(sides) and not label:
        return _Row(file, None, size, split)
    if len(sides) == 1:
        sides = sides[0].strip("[]() ").replace(",", " ").split()
    values = [value for value in map(_number, sides) if value is not None]
    if not label or len(values) != 4 or len(sides) != 4:
        raise ValueError("without a class or four numbers")
    x, y, right, bottom = values
    box: Box = (x, y, x + right, y + bottom) if columns.has_extent else (x, y, right, bottom)
    difficult, crowd = (cell(index).lower() in _TRUE for index in columns.flags)
    return _Row(file, RawObject(label, box, difficult, crowd), size, split)


def _number(text: str) -> float | None:
    try:
        return parse_number(text)
    except ValueError:
        return None


def _select_split(rows: Sequence[_Row], split: str, path: Path) -> list[_Row]:
    names = split_names(split.lower())
    selected = [row for row in rows if row.split.lower() in names]
    if not selected:
        known = ", ".join(sorted({row.split for row in rows} - {""})) or "none"
        raise UsageError(f"'{path}' has no rows of the set '{split}'; choose from {known}")
    return selected


def _are_fractions(rows: Sequence[_Row]) -> bool:
    """Return whether most boxes lie within the unit square, up to rounding and padding.

    Boxes in pixels that small do not exist, while single fractions above 1 are common.
    """
    ends = [max(row.item.box) for row in rows if row.item and all(map(isfinite, row.item.box))]
    return 2 * sum(end <= _MAX_FRACTION for end in ends) > len(ends)


def _group_by_image(
    rows: Sequence[_Row], finder: ImageFinder, fractions: bool, problems: list[Problem]
) -> list[RawImage]:
    groups: dict[str, list[_Row]] = {}
    for row in rows:
        groups.setdefault(row.file, []).append(row)
    raw_images = []
    for file, group in groups.items():
        try:
            path = finder.find(file)
        except ValueError as error:
            problems.append(Problem(file, f"{error}; it was skipped"))
            continue
        objects, dropped = drop_duplicates([row.item for row in group if row.item is not None])
        if dropped:
            problems.append(Problem(str(path), f"{dropped} duplicate rows were skipped"))
        size = next((row.size for row in group if row.size), None)
        raw_images.append(RawImage(path, file, objects, size, fractions=fractions))
    return raw_images
