"""YOLO folders: trees of `images` and `labels`, and a list of class names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from realtime_ssd.core.errors import UsageError
from realtime_ssd_training.data.classes import Selection
from realtime_ssd_training.data.files import FileDataset, RawImage, build
from realtime_ssd_training.data.images import list_images
from realtime_ssd_training.data.sample import Problem
from realtime_ssd_training.data.yolo_labels import label_file, read_labels

__all__ = ["open_yolo"]

_SPLITS = ("train", "val", "test")
_SAME = (("val", "valid", "validation"), ("train", "training"), ("test", "testing"))
_YAML = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")
_NAMES = ("classes.txt", "obj.names", "labels/classes.txt")


@dataclass(frozen=True, slots=True)
class _Folder:
    """What is known of a data set before its images are read.

    Attributes:
        root: Folder that paths start from.
        file: The YAML file or list of names.
        names: Class names by number.
        splits: What the YAML file lists of each split.
        pose: Whether label rows go on with key points after the box.
    """

    root: Path
    file: Path
    names: Mapping[int, str]
    splits: Mapping[str, Sequence[str]] = field(default_factory=dict)
    pose: bool = False


def open_yolo(name: str, path: Path, split: str, selection: Selection) -> FileDataset:
    """Open a YOLO data set (Darknet's label format, Ultralytics' folders).

    The labels of `.../images/NAME.jpg` stand in `.../labels/NAME.txt`, or beside the image, one
    row an object: class number from 0, then centre x, centre y, width and height as fractions of
    the image, or the corners of a polygon, around which a box is put. An image without label file
    has no objects. Class names come from `data.yaml` or `dataset.yaml` (`names` as list or
    mapping; `path`, `train`, `val` and `test` as folders, lists of folders or lists of files), or
    else from `classes.txt` or `obj.names`.

    Args:
        name: The text the data set is opened with.
        path: Its folder, or its YAML file.
        split: A split of the YAML file, or of the folders `images/SPLIT` or `SPLIT/images`, or
            the list `SPLIT.txt`; empty for all images.
        selection: Wanted classes; they keep the order of their numbers.

    Raises:
        UsageError: If a folder, the class names or the split are missing, or nothing is labelled.
    """
    folder, problems = _read_folder(path), list[Problem]()
    images = list(dict.fromkeys(_find_images(folder, split, problems)))
    if not images:
        raise UsageError(f"'{name}' holds no images; the labels need them beside or in 'images'")
    labels = {image: label_file(image) for image in images}
    _check_labels(name, labels, problems)
    raws = []
    for image, file in labels.items():
        try:
            objects, faults = read_labels(file, folder.names, folder.pose) if file else ([], [])
        except ValueError as error:
            problems.append(Problem(str(file), f"{error}; its image was skipped"))
            continue
        problems += [Problem(str(file), fault) for fault in faults]
        raws.append(RawImage(image, _short(image, folder.root), objects, fractions=True))
    found = [folder.names[number] for number in sorted(folder.names)]
    return build(name, raws, selection.classes(found), problems)


def _short(image: Path, root: Path) -> str:
    return image.relative_to(root).as_posix() if image.is_relative_to(root) else image.name


def _check_labels(name: str, labels: Mapping[Path, Path | None], problems: list[Problem]) -> None:
    """Report images without and label files without their counterpart."""
    bare = [image for image, file in labels.items() if file is None]
    if len(bare) == len(labels):
        raise UsageError(
            f"no image of '{name}' has a label file, the first is '{bare[0]}'; labels of "
            "'images/a.jpg' are sought as 'labels/a.txt' and 'images/a.txt'"
        )
    if bare:
        text = f"{len(bare)} images have no label file and count as images without objects"
        problems.append(Problem(str(bare[0]), text))
    used = {file for file in labels.values() if file is not None}
    for folder in sorted({file.parent for file in used if "labels" in file.parts}):
        for file in sorted(set(folder.glob("*.txt")) - used):
            if file.name not in ("classes.txt", *(f"{split}.txt" for split in _SPLITS)):
                problems.append(Problem(str(file), "there is no image for it; it was skipped"))


def _find_images(folder: _Folder, split: str, problems: list[Problem]) -> Iterator[Path]:
    if not split and not folder.splits:
        base = folder.root / "images"
        yield from list_images(base if base.is_dir() else folder.root)
        return
    for name in [split] if split else list(folder.splits):
        places = _places(folder, name)
        if not places and split:
            raise UsageError(
                f"there is no split '{split}' in '{folder.file}'; choose from "
                f"{', '.join(_known_splits(folder)) or 'none'}"
            )
        if not places:
            text = f"nothing is where split '{name}' should be; it was skipped"
            problems.append(Problem(str(folder.file), text))
        for place in places:
            yield from list_images(place) if place.is_dir() else _listed(place, folder.root)


def _places(folder: _Folder, split: str) -> list[Path]:
    """Find the folders or lists of a split."""
    names = [split, *(name for group in _SAME if split in group for name in group)]
    for name in names:
        if name in folder.splits:
            found = (_existing(folder.root, text) for text in folder.splits[name])
            return [place for place in found if place is not None]
    for name in names:
        for text in (f"images/{name}", f"{name}/images", f"{name}.txt", name):
            place = folder.root / text
            if place.exists():
                return [place]
    return []


def _existing(root: Path, text: str) -> Path | None:
    """Find a path of a YAML file; exported ones may begin with a "../" too many."""
    for candidate in (root / text, root / text.removeprefix("../")):
        if candidate.exists():
            return candidate
    return None


def _known_splits(folder: _Folder) -> list[str]:
    below = [path.name for path in (folder.root / "images").glob("*") if path.is_dir()]
    above = [path.parent.name for path in folder.root.glob("*/images") if path.is_dir()]
    return list(dict.fromkeys([*folder.splits, *sorted(below + above)]))


def _listed(path: Path, root: Path) -> list[Path]:
    """Read a list of image files, which start from the list's folder or from the root."""
    rows = [row.strip() for row in _text(path).splitlines() if row.strip()]
    return [next((p for p in (path.parent / r, root / r) if p.exists()), root / r) for r in rows]


def _read_folder(path: Path) -> _Folder:
    if path.is_file():
        return _from_yaml(path)
    if not path.is_dir():
        raise UsageError(f"there is no folder '{path}'; give yolo:FOLDER or yolo:data.yaml")
    others = sorted({*path.glob("*.yaml"), *path.glob("*.yml")})
    for file in (*(path / name for name in _YAML), *others):
        if file.is_file() and "names" in _yaml(file):
            return _from_yaml(file)
    lists = (*(path / name for name in _NAMES), *sorted(path.glob("*.names")))
    for file in lists:
        if file.is_file():
            rows = [row.strip() for row in _text(file).splitlines()]
            return _Folder(path, file, {k: row for k, row in enumerate(rows) if row})
    raise UsageError(
        f"'{path}' does not name its classes; add data.yaml with 'names', or classes.txt with "
        "one name a line"
    )


def _from_yaml(file: Path) -> _Folder:
    content = _yaml(file)
    names = _class_names(content.get("names"), file)
    root = file.parent
    if isinstance(content.get("path"), str) and (root / content["path"]).is_dir():
        root = root / content["path"]
    splits = {}
    for split in dict.fromkeys((*_SPLITS, *(name for group in _SAME for name in group))):
        value = content.get(split)
        texts = [value] if isinstance(value, str) else _listing(value)
        if texts := [text for text in texts if isinstance(text, str) and text]:
            splits[split] = texts
    return _Folder(root, file, names, splits, "kpt_shape" in content)


def _class_names(names: Any, file: Path) -> dict[int, str]:
    pairs = names.items() if isinstance(names, dict) else enumerate(_listing(names))
    try:
        found = {int(number): name for number, name in pairs if isinstance(name, str)}
    except ValueError:
        found = {}
    if not found or len(found) != len(names):  # or other things than texts
        raise UsageError(
            f"'names' in '{file}' is no list of class names; write names: [cat, dog] or a mapping "
            "from numbers to names"
        )
    return found


def _listing(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _yaml(file: Path) -> dict[str, Any]:
    """Read a YAML file; every scalar is kept as text, so that a class may be called "no"."""
    import yaml

    try:
        content = yaml.load(_text(file), Loader=yaml.BaseLoader)  # noqa: S506 - texts only
    except (yaml.YAMLError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"'{file}' is no valid YAML ({reason}); correct it") from None
    return content if isinstance(content, dict) else {}


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        raise UsageError(f"'{file}' cannot be read as UTF-8 text; save it again as such") from None
