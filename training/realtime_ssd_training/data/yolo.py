"""YOLO datasets: parallel trees `images` and `labels`, and a list of class names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from realtime_ssd.core.errors import UsageError
from realtime_ssd_training.data.image_finder import ImageFinder
from realtime_ssd_training.data.images import list_images
from realtime_ssd_training.data.raw_dataset import RawDataset, RawImage
from realtime_ssd_training.data.sample import Problem
from realtime_ssd_training.data.yolo_labels import LabelFinder, read_labels
from realtime_ssd_training.data.yolo_layout import Layout, has_yaml, read_layout, read_text

__all__ = ["has_yaml", "read_yolo"]

_LISTS = frozenset({"classes.txt", "train.txt", "val.txt", "valid.txt", "test.txt"})


def read_yolo(name: str, path: Path, split: str) -> RawDataset:
    """Read a YOLO dataset (Darknet's label format, Ultralytics' or CVAT's folders).

    The labels of `.../images/NAME.jpg` are in `.../labels/NAME.txt` or next to the image, one row
    per object: class number from 0 or class name, then center x, center y, width and height as
    fractions of the image, or the corners of a polygon, which becomes its bounding box. An image
    without a label file has no objects. Class names come from `data.yaml` or `dataset.yaml`
    (`names` as list or mapping; `path`, `train`, `val` and `test` as folders, lists of folders or
    lists of files), or else from Darknet's `obj.data`, `classes.txt` or `obj.names`. Paths of
    another machine are looked up below the folder, see `ImageFinder`.

    Args:
        name: Specification the dataset is opened with.
        path: Its folder, its YAML file or `obj.data`.
        split: A split of the YAML file, or of the folders `images/SPLIT` or `SPLIT/images`, or
            the list `SPLIT.txt`; empty for all images.

    Raises:
        UsageError: If a folder, the class names, the split or all labels are missing.
    """
    layout, problems = read_layout(path), list[Problem]()
    images = list(dict.fromkeys(_find_images(layout, split, problems)))
    if not images:
        raise UsageError(f"'{name}' has no images; put them in 'images' or next to the labels")
    finder = LabelFinder()
    labels = {image: finder.find(image) for image in images}
    _check_labels(name, labels, problems)
    raw_images = []
    for image, file in labels.items():
        try:
            objects, defects = read_labels(file, layout.names, layout.pose) if file else ([], [])
        except ValueError as error:
            problems.append(Problem(str(file), f"{error}; its image was skipped"))
            continue
        problems += [Problem(str(file), defect) for defect in defects]
        raw_images.append(
            RawImage(image, _relative_name(image, layout.root), objects, fractions=True)
        )
    classes = tuple(layout.names[number] for number in sorted(layout.names))
    return RawDataset(name, raw_images, classes, (), tuple(problems))


def _relative_name(image: Path, root: Path) -> str:
    return image.relative_to(root).as_posix() if image.is_relative_to(root) else image.name


def _check_labels(name: str, labels: Mapping[Path, Path | None], problems: list[Problem]) -> None:
    """Report images without label files and label files without images."""
    unlabeled = [image for image, file in labels.items() if file is None]
    if len(unlabeled) == len(labels):
        raise UsageError(
            f"no image of '{name}' has a label file, the first is '{unlabeled[0]}'; labels of "
            "'images/a.jpg' must be in 'labels/a.txt' or 'images/a.txt'"
        )
    if unlabeled:
        text = f"{len(unlabeled)} images have no label file and count as images without objects"
        problems.append(Problem(str(unlabeled[0]), text))
    used = {file for file in labels.values() if file is not None}
    for folder in sorted({file.parent for file in used if "labels" in file.parts}):
        for file in sorted(set(folder.glob("*.txt")) - used):
            if file.name not in _LISTS:
                problems.append(Problem(str(file), "it has no image; it was skipped"))


def _find_images(layout: Layout, split: str, problems: list[Problem]) -> Iterator[Path]:
    if not split and not layout.splits:
        folder = layout.root / "images"
        yield from list_images(folder if folder.is_dir() else layout.root)
        return
    for name in [split] if split else list(layout.splits):
        paths = layout.paths_of(name)
        if not paths and split:
            raise UsageError(
                f"there is no split '{split}' in '{layout.file}'; choose from "
                f"{', '.join(layout.known_splits()) or 'none'}"
            )
        if not paths:
            text = f"the images of split '{name}' do not exist; it was skipped"
            problems.append(Problem(str(layout.file), text))
        for path in paths:
            if path.is_dir():
                yield from list_images(path)
            else:
                yield from _read_list(path, layout.root, name, problems)


def _read_list(path: Path, root: Path, split: str, problems: list[Problem]) -> Iterator[Path]:
    """Read a list of image files, which are relative to the list's folder or to the root."""
    finder = ImageFinder(root, [split])
    for row in (row.strip() for row in read_text(path).splitlines()):
        if not row:
            continue
        if (path.parent / row).is_file():
            yield path.parent / row
            continue
        try:
            yield finder.find(row)
        except ValueError as error:
            problems.append(Problem(str(path), f"{error}; it was skipped"))
