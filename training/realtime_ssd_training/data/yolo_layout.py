"""Class names and splits of a YOLO dataset: Ultralytics' YAML, Darknet's obj.data, or a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from realtime_ssd.core.errors import UsageError
from realtime_ssd_training.data.image_finder import split_names

__all__ = ["SPLITS", "Layout", "existing_path", "has_yaml", "read_layout", "read_text"]

SPLITS = ("train", "val", "test")
_YAML_FILES = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")
_NAME_LISTS = ("classes.txt", "obj.names", "labels/classes.txt")


@dataclass(frozen=True, slots=True)
class Layout:
    """Class names and splits of a dataset.

    Attributes:
        root: Folder that paths are relative to.
        file: The file that names the classes.
        names: Class names by number.
        splits: Paths of each split that the file names.
        pose: Whether keypoints follow the box in label rows.
    """

    root: Path
    file: Path
    names: Mapping[int, str]
    splits: Mapping[str, Sequence[str]] = field(default_factory=dict)
    pose: bool = False

    def paths_of(self, split: str) -> list[Path]:
        """Return the existing folders or lists of a split; empty if there is none."""
        names = split_names(split)
        for name in names:
            if name in self.splits:
                paths = (existing_path(self.root, text) for text in self.splits[name])
                return [path for path in paths if path is not None]
        for name in names:
            for text in (f"images/{name}", f"{name}/images", f"{name}.txt", name):
                path = self.root / text
                if path.exists():
                    return [path]
        return []

    def known_splits(self) -> list[str]:
        """Return the names of all splits."""
        below = [path.name for path in (self.root / "images").glob("*") if path.is_dir()]
        above = [path.parent.name for path in self.root.glob("*/images") if path.is_dir()]
        return list(dict.fromkeys([*self.splits, *sorted(below + above)]))


def has_yaml(path: Path) -> bool:
    """Return whether a dataset folder has a YAML file, or is specified by one."""
    return path.suffix in (".yaml", ".yml") or bool(_yaml_files(path))


def _yaml_files(folder: Path) -> list[Path]:
    return sorted({*folder.glob("*.yaml"), *folder.glob("*.yml")})


def existing_path(root: Path, text: str) -> Path | None:
    """Return an existing path for one that may be of another machine, or None.

    Folders are dropped from the start until the rest exists below the root: exported YAML files
    may start with an extra "../", with a folder "data", or with the path of another machine.
    """
    name = text.replace("\\", "/")
    if (root / name).exists():
        return root / name
    parts = [part for part in PurePosixPath(name).parts if part not in ("..", ".", "/")]
    candidates = (root.joinpath(*parts[start:]) for start in range(len(parts)))
    return next((path for path in candidates if path.exists()), None)


def read_layout(path: Path) -> Layout:
    """Read the class names and splits of a dataset.

    Args:
        path: Its folder, YAML file or Darknet data file.

    Raises:
        UsageError: If there are no class names.
    """
    if path.is_file():
        return _from_darknet(path) if path.suffix == ".data" else _from_yaml(path)
    if not path.is_dir():
        raise UsageError(f"the folder '{path}' does not exist; use yolo:FOLDER or yolo:data.yaml")
    for file in (*(path / name for name in _YAML_FILES), *_yaml_files(path)):
        if file.is_file() and "names" in _read_yaml(file):
            return _from_yaml(file)
    for file in sorted(path.glob("*.data")):
        if "names" in _read_pairs(file):
            return _from_darknet(file)
    for file in (*(path / name for name in _NAME_LISTS), *sorted(path.glob("*.names"))):
        if file.is_file():
            return Layout(path, file, _read_names(file))
    raise UsageError(
        f"'{path}' does not name its classes; add data.yaml with 'names', or classes.txt with "
        "one name per line"
    )


def _read_names(file: Path) -> dict[int, str]:
    rows = [row.strip() for row in read_text(file).splitlines()]
    return {index: row for index, row in enumerate(rows) if row}


def _read_pairs(file: Path) -> dict[str, str]:
    """Read the "key = value" rows of Darknet's data files."""
    pairs = (row.partition("=") for row in read_text(file).splitlines() if "=" in row)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _from_darknet(file: Path) -> Layout:
    pairs, root, names = _read_pairs(file), file.parent, None
    # Darknet's own files are in "cfg" or "data", and relative to the folder above.
    for folder in (file.parent, file.absolute().parent.parent):
        if names is None and pairs.get("names"):
            root, names = folder, existing_path(folder, pairs["names"])
    if names is None:
        raise UsageError(
            f"the list of class names '{pairs.get('names', 'names')}' of '{file}' does not exist; "
            "put it next to the file"
        )
    known = {name for split in SPLITS for name in split_names(split)}
    splits = {key: [value] for key, value in pairs.items() if key in known and value}
    return Layout(root, file, _read_names(names), splits)


def _from_yaml(file: Path) -> Layout:
    content = _read_yaml(file)
    names = _class_names(content.get("names"), file)
    root = file.parent
    if isinstance(content.get("path"), str) and (root / content["path"]).is_dir():
        root = root / content["path"]
    splits = {}
    for split in dict.fromkeys((*SPLITS, *(name for s in SPLITS for name in split_names(s)))):
        value = content.get(split)
        texts = [value] if isinstance(value, str) else _as_list(value)
        if texts := [text for text in texts if isinstance(text, str) and text]:
            splits[split] = texts
    return Layout(root, file, names, splits, "kpt_shape" in content)


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
        content = yaml.load(read_text(file), Loader=yaml.BaseLoader)  # noqa: S506 - texts only
    except (yaml.YAMLError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"'{file}' is not valid YAML ({reason}); correct it") from None
    return content if isinstance(content, dict) else {}


def read_text(file: Path) -> str:
    """Return the content of a text file.

    Raises:
        UsageError: If it cannot be read as UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        raise UsageError(f"'{file}' cannot be read as UTF-8 text; save it as UTF-8") from None
