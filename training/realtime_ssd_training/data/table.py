"""A folder of images with a CSV file: one row a box."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from realtime_ssd.core.errors import UsageError
from realtime_ssd_training.data.classes import Selection
from realtime_ssd_training.data.files import Box, FileDataset, RawImage, RawObject, build, distinct
from realtime_ssd_training.data.images import list_images
from realtime_ssd_training.data.sample import Problem

__all__ = ["open_table"]

_IMAGE = ("filename", "file_name", "image", "image_path", "path", "file", "image_id", "imageid")
_LABEL = ("class", "label", "class_name", "labelname", "category", "name", "classname")
_SIDES = (
    ("xmin", "x_min", "x1", "left", "bbox_x1"),
    ("ymin", "y_min", "y1", "top", "bbox_y1"),
    ("xmax", "x_max", "x2", "right", "bbox_x2"),
    ("ymax", "y_max", "y2", "bottom", "bbox_y2"),
)
_CORNER = (("x", "bbox_x", "bbox_left"), ("y", "bbox_y", "bbox_top"))
_EXTENT = (("w", "bbox_width", "bbox_w", "width"), ("h", "bbox_height", "bbox_h", "height"))
_SIZE = (("image_width", "img_width", "width"), ("image_height", "img_height", "height"))
_FLAGS = (("difficult", "isdifficult"), ("iscrowd", "crowd", "isgroupof"))
_TRUE = frozenset({"1", "1.0", "true", "yes"})
_BARE = ("filename", "xmin", "ymin", "xmax", "ymax", "class")


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where in a row everything stands; -1 for what the table lacks.

    Attributes:
        image: File name.
        label: Class.
        box: x1, y1 and either x2, y2 or width, height.
        extent: Whether it is the latter.
        size: Width and height of the image.
        flags: Difficult and crowd.
    """

    image: int
    label: int
    box: tuple[int, ...]
    extent: bool
    size: tuple[int, ...]
    flags: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Row:
    file: str
    item: RawObject | None
    size: tuple[int, int] | None


def open_table(name: str, path: Path, folder: Path, selection: Selection) -> FileDataset:
    """Open a CSV file with one row a box and the folder of its images.

    The first row names the columns, in any order and case; others are left alone:

    - the image: filename, file_name, image, image_path, path, file or image_id. A path is sought
      from the folder, then its last part alone, then that part with any image ending;
    - the class: class, label, class_name, LabelName, category, name or classname;
    - the box in pixels from 0: xmin, ymin, xmax, ymax (or x1, y1, x2, y2; left, top, right,
      bottom), or x, y, w, h (or x, y, width, height; bbox_x, ...). Where no value of the whole
      file is above 1, all are fractions of the image, as in Open Images;
    - optionally width and height (or image_width, image_height) of the image, which are compared
      with the file, and difficult, iscrowd or IsGroupOf.

    This covers the CSV files of TensorFlow's object detection tools. Without such a first row the
    columns are `path,x1,y1,x2,y2,class`, as RetinaNet's tools write them. A row without box and
    class is an image without objects; images that no row names are left out. Commas, semicolons
    and tabs divide columns.

    Args:
        name: The text the data set is opened with.
        path: The CSV file, UTF-8.
        folder: Folder that file names start from.
        selection: Wanted classes; by default the names that occur, sorted.

    Raises:
        UsageError: If a file is missing, or the columns or their values are not understood.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder of images '{folder}'; give csv:FILE:IMAGES")
    lines = list(_lines(path))
    if not lines:
        raise UsageError(f"'{path}' is empty; it needs one row a box: {','.join(_BARE)}")
    columns, first = _columns(lines[0][1], path)
    problems: list[Problem] = []
    rows = list(_rows(lines[first:], columns, path, problems))
    fractions = _are_fractions(rows)
    raws = _images(rows, _Finder(folder), fractions, problems)
    found = sorted({item.label for raw in raws for item in raw.objects})
    return build(name, raws, selection.classes(found), problems)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Give the rows that hold anything, each with its line number."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            sign = max(",;\t", key=head.count)
            reader = csv.reader(file, delimiter=sign)
            for row in reader:
                words = [word.strip() for word in row]
                if any(words):
                    yield reader.line_num, words
    except OSError as error:
        raise UsageError(
            f"the table '{path}' cannot be read ({error.strerror}); give csv:FILE[:IMAGES]"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"'{path}' is no CSV file in UTF-8 ({error}); export it again") from None


def _columns(head: list[str], path: Path) -> tuple[_Columns, int]:
    """Understand the first row: where things stand, and where the boxes begin."""
    found = _named(head)
    if found is not None:
        return found, 1
    bare = _named(_BARE)
    if bare is not None and len(head) == len(_BARE):
        sides = head[1:5]
        if not any(sides) or all(_number(word) is not None for word in sides):
            return bare, 0
    raise UsageError(
        f"the first row of '{path}' is not understood: {','.join(head)[:120]}; name the columns "
        f"{','.join(_BARE)}"
    )


def _named(head: Sequence[str]) -> _Columns | None:
    """Find the columns that a first row names."""
    places = {word.lower().replace(" ", "_"): k for k, word in reversed(list(enumerate(head)))}
    box = tuple(_at(places, names) for names in _SIDES)
    extent = min(box) < 0
    if extent:
        box = tuple(_at(places, names) for names in (*_CORNER, *_EXTENT))
    image, label = _at(places, _IMAGE), _at(places, _LABEL)
    if min(image, label, *box) < 0:
        return None
    size = tuple(_at(places, names) for names in _SIZE)
    # "width" cannot be the width of the box and of the image.
    size = tuple(-1 if place in box else place for place in size)
    return _Columns(image, label, box, extent, size, tuple(_at(places, n) for n in _FLAGS))


def _at(places: Mapping[str, int], names: Sequence[str]) -> int:
    return next((places[name] for name in names if name in places), -1)


def _rows(
    lines: Sequence[tuple[int, list[str]]],
    columns: _Columns,
    path: Path,
    problems: list[Problem],
) -> Iterator[_Row]:
    faults: dict[str, list[int]] = {}
    for number, words in lines:
        try:
            yield _row(words, columns)
        except ValueError as error:
            faults.setdefault(str(error), []).append(number)
    for fault, at in faults.items():
        text = f"{len(at)} rows {fault}, first line {at[0]}; they were skipped"
        problems.append(Problem(str(path), text))


def _row(words: list[str], columns: _Columns) -> _Row:
    def word(place: int) -> str:
        return words[place] if 0 <= place < len(words) else ""

    file, label = word(columns.image), word(columns.label)
    if not file:
        raise ValueError("name no image")
    sizes = [_number(word(place)) or 0 for place in columns.size]
    size = (int(sizes[0]), int(sizes[1])) if min(sizes) > 0 and isfinite(sum(sizes)) else None
    sides = [word(place) for place in columns.box]
    if not any(sides) and not label:
        return _Row(file, None, size)
    values = [_number(side) for side in sides]
    if not label or None in values:
        raise ValueError("hold no class or no four numbers")
    x, y, right, bottom = (value or 0.0 for value in values)
    box: Box = (x, y, x + right, y + bottom) if columns.extent else (x, y, right, bottom)
    difficult, crowd = (word(place).lower() in _TRUE for place in columns.flags)
    return _Row(file, RawObject(label, box, difficult, crowd), size)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _are_fractions(rows: Sequence[_Row]) -> bool:
    """Tell whether the boxes are fractions: then no value of the whole file is above 1."""
    values = [value for row in rows if row.item for value in row.item.box if isfinite(value)]
    return bool(values) and max(values) <= 1.0


def _images(
    rows: Sequence[_Row], finder: _Finder, fractions: bool, problems: list[Problem]
) -> list[RawImage]:
    """Gather the rows of each image."""
    groups: dict[str, list[_Row]] = {}
    for row in rows:
        groups.setdefault(row.file, []).append(row)
    raws = []
    for file, group in groups.items():
        path = finder.find(file)
        objects, twice = distinct([row.item for row in group if row.item is not None])
        if twice:
            problems.append(Problem(str(path), f"{twice} rows given twice were skipped"))
        size = next((row.size for row in group if row.size), None)
        raws.append(RawImage(path, file, objects, size, fractions=fractions))
    return raws


class _Finder:
    """Finds the image files that a table names.

    Args:
        folder: Folder that names start from.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stems: dict[str, Path] | None = None

    def find(self, text: str) -> Path:
        """Find a file; one that does not exist is given where it should be."""
        name = text.replace("\\", "/")
        for path in (self._folder / name, self._folder / Path(name).name):
            if path.is_file():
                return path
        if self._stems is None:
            self._stems = {path.stem: path for path in reversed(list_images(self._folder))}
        return self._stems.get(Path(name).name, self._folder / name)
