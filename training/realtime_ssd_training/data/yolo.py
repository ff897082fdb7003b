"""YOLO datasets: parallel trees `images` and `labels`, and a list of class names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from realtime_ssd.core.errors import UsageError
from realtime_ssd_training.data.classes import ClassSelection
from realtime_ssd_training.data.file_dataset import FileDataset, RawImage, build_file_dataset
from realtime_ssd_training.data.images import list_images
from realtime_ssd_training.data.sample import Problem
from realtime_ssd_training.data.yolo_labels import label_file, read_labels

__all__ = ["has_yaml", "open_yolo"]

_SPLITS = ("train", "val", "test")
_SYNONYMS = (("val", "valid", "validation"), ("train", "training"), ("test", "testing"))
_YAML_FILES = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")
_NAME_LISTS = ("classes.txt", "obj.names", "labels/classes.txt")


@dataclass(frozen=True, slots=True)
class _Layout:
    """Class names and splits of a dataset.

    Attributes:
        root: Folder that paths are relative to.
        file: The YAML file or list of names.
        names: Class names by number.
        splits: Paths of each split in the YAML file.
        pose: Whether keypoints follow the box in label rows.
    """

    root: Path
    file: Path
    names: Mapping[int, str]
    splits: Mapping[str, Sequence[str]] = field(default_factory=dict)
    pose: bool = False


def open_yolo(name: str, path: Path, split: str, selection: ClassSelection) -> FileDataset:
    """Open a YOLO dataset (Darknet's label format, Ultralytics' folders).

    The labels of `.../images/NAME.jpg` are in `.../labels/NAME.txt` or next to the image, one row
    per object: class number from 0, then center x, center y, width and height as fractions of the
    image, or the corners of a polygon, which becomes its bounding box. An image without a label
    file has no objects. Class names come from `data.yaml` or `dataset.yaml` (`names` as list or
    mapping; `path`, `train`, `val` and `test` as folders, lists of folders or lists of files), or
    else from `classes.txt` or `obj.names`.

    Args:
        name: Specification the dataset is opened with.
        path: Its folder, or its YAML file.
        split: A split of the YAML file, or of the folders `images/SPLIT` or `SPLIT/images`, or
            the list `SPLIT.txt`; empty for all images.
        selection: Classes to read; they are ordered by number.

    Raises:
        UsageError: If a folder, the class names, the split or all labels are missing.
    """
    layout, problems = _read_layout(path), list[Problem]()
    images = list(dict.fromkeys(_find_images(layout, split, problems)))
    if not images:
        raise UsageError(f"'{name}' has no images; put them in 'images' or next to the labels")
    labels = {image: label_file(image) for image in images}
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
    classes = selection.map_classes([layout.names[number] for number in sorted(layout.names)])
    return build_file_dataset(name, raw_images, classes, problems)


def has_yaml(path: Path) -> bool:
    """Return whether a dataset folder has a YAML file, or is specified by one."""
    return path.is_file() or bool(_yaml_files(path))


def _yaml_files(folder: Path) -> list[Path]:
    return sorted({*folder.glob("*.yaml"), *folder.glob("*.yml")})


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
            if file.name not in ("classes.txt", *(f"{split}.txt" for split in _SPLITS)):
                problems.append(Problem(str(file), "it has no image; it was skipped"))


def _find_images(layout: _Layout, split: str, problems: list[Problem]) -> Iterator[Path]:
    if not split and not layout.splits:
        folder = layout.root / "images"
        yield from list_images(folder if folder.is_dir() else layout.root)
        return
    for name in [split] if split else list(layout.splits):
        paths = _split_paths(layout, name)
        if not paths and split:
            raise UsageError(
                f"there is no split '{split}' in '{layout.file}'; choose from "
                f"{', '.join(_known_splits(layout)) or 'none'}"
            )
        if not paths:
            text = f"the images of split '{name}' do not exist; it was skipped"
            problems.append(Problem(str(layout.file), text))
        for path in paths:
            yield from list_images(path) if path.is_dir() else _read_list(path, layout.root)


def _split_paths(layout: _Layout, split: str) -> list[Path]:
    """Return the existing folders or lists of a split."""
    names = [split, *(name for group in _SYNONYMS if split in group for name in group)]
    for name in names:
        if name in layout.splits:
            paths = (_existing_path(layout.root, text) for text in layout.splits[name])
            return [path for path in paths if path is not None]
    for name in names:
        for text in (f"images/{name}", f"{name}/images", f"{name}.txt", name):
            path = layout.root / text
            if path.exists():
                return [path]
    return []


def _existing_path(root: Path, text: str) -> Path | None:
    """Return a path of a YAML file; exported ones may start with an extra "../"."""
    for candidate in (root / text, root / text.removeprefix("../")):
        if candidate.exists():
            return candidate
    return None


def _known_splits(layout: _Layout) -> list[str]:
    below = [path.name for path in (layout.root / "images").glob("*") if path.is_dir()]
    above = [path.parent.name for path in layout.root.glob("*/images") if path.is_dir()]
    return list(dict.fromkeys([*layout.splits, *sorted(below + above)]))


def _read_list(path: Path, root: Path) -> list[Path]:
    """Read a list of image files, which are relative to the list's folder or to the root."""
    rows = [row.strip() for row in _read_text(path).splitlines() if row.strip()]
    return [next((p for p in (path.parent / r, root / r) if p.exists()), root / r) for r in rows]


def _read_layout(path: Path) -> _Layout:
    if path.is_file():
        return _layout_from_yaml(path)
    if not path.is_dir():
        raise UsageError(f"the folder '{path}' does not exist; use yolo:FOLDER or yolo:data.yaml")
    for file in (*(path / name for name in _YAML_FILES), *_yaml_files(path)):
        if file.is_file() and "names" in _read_yaml(file):
            return _layout_from_yaml(file)
    for file in (*(path / name for name in _NAME_LISTS), *sorted(path.glob("*.names"))):
        if file.is_file():
            rows = [row.strip() for row in _read_text(file).splitlines()]
            return _Layout(path, file, {index: row for index, row in enumerate(rows) if row})
    raise UsageError(
        f"'{path}' does not name its classes; add data.yaml with 'names', or classes.txt with "
        "one name per line"
    )


def _layout_from_yaml(file: Path) -> _Layout:
    content = _read_yaml(file)
    names = _class_names(content.get("names"), file)
    root = file.parent
    if isinstance(content.get("path"), str) and (root / content["path"]).is_dir():
        root = root / content["path"]
    splits = {}
    for split in dict.fromkeys((*_SPLITS, *(name for group in _SYNONYMS for name in group))):
        value = content.get(split)
        texts = [value] if isinstance(value, str) else _as_list(value)
        if texts := [text for text in texts if isinstance(text, str) and text]:
            splits[split] = texts
    return _Layout(root, file, names, splits, "kpt_shape" in content)


def _class_names(value: Any, file: Path) -> dict[int, str]:
    pairs = value.items() if isinstance(value, dict) else enumerate(_as_list(value))
    try:
        names = {int(number): name for number, name in pairs if isinstance(name, str)}
    except ValueError:
        names = {}
    if not names or len(names) != len(value):  # or names that are not texts
        raise UsageError(
            f"'names' in '{file}' is not a list of class names; write names: [cat, dog] or a "
            "mapping from numbers to names"
        )
    return names


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _read_yaml(file: Path) -> dict[str, Any]:
    """Read a YAML file with all scalars as text, because a class may be called "no"."""
    import yaml

    try:
        content = yaml.load(_read_text(file), Loader=yaml.BaseLoader)  # noqa: S506 - texts only
    except (yaml.YAMLError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"'{file}' is not valid YAML ({reason}); correct it") from None
    return content if isinstance(content, dict) else {}


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        raise UsageError(f"'{file}' cannot be read as UTF-8 text; save it as UTF-8") from None
