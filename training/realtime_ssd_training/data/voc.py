"""Pascal VOC datasets: one XML file per image, in VOC's folders or next to the images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from realtime_ssd.core.errors import UsageError
from realtime_ssd_training.data.image_finder import ImageFinder, plain_name, split_names
from realtime_ssd_training.data.images import EXTENSIONS
from realtime_ssd_training.data.raw_dataset import RawDataset, RawImage
from realtime_ssd_training.data.sample import Problem
from realtime_ssd_training.data.voc_annotation import read_annotation

__all__ = ["read_voc"]


def read_voc(name: str, root: Path, split: str) -> RawDataset:
    """Read a Pascal VOC dataset (VOC2007 development kit, section 4).

    VOC counts pixels from 1 and includes both corners, so (1, 1, W, H) is the whole image; it
    becomes (0, 0, W, H). The XML files are below `Annotations` and the images below `JPEGImages`,
    or both are anywhere below the folder, as labelImg and Roboflow write them. The image of an
    XML file has the same name and the same subfolder, or else the name in `filename`.

    Args:
        name: Specification the dataset is opened with.
        root: Folder with `Annotations` and `JPEGImages`, or with XML files and images.
        split: Name of a list in `ImageSets/Main` or of a subfolder; empty for all annotation
            files.

    Raises:
        UsageError: If a folder or the split is missing.
    """
    annotations = root / "Annotations"
    if not annotations.is_dir():
        annotations = root
    files = {
        path.relative_to(annotations).with_suffix("").as_posix(): path
        for path in sorted(annotations.rglob("*.xml"))
    }
    # Without a folder of annotations, VOC datasets below the root have lists of their own.
    if not files or (annotations == root and any(root.glob("*/Annotations"))):
        raise UsageError(_missing_folder(root))
    images = root / "JPEGImages"
    finder = ImageFinder(images if images.is_dir() else root, [split] if split else [])
    problems: list[Problem] = []
    raw_images: list[RawImage] = []
    for stem in _image_stems(root, annotations, split, files):
        path = files.get(stem, annotations / f"{stem}.xml")
        try:
            raw_image, defects = read_annotation(path, stem, finder)
        except ValueError as error:
            problems.append(Problem(str(path), f"{error}; it was skipped"))
            continue
        raw_images.append(raw_image)
        problems += [Problem(str(path), defect) for defect in defects]
    return RawDataset.with_sorted_classes(name, raw_images, problems)


def _missing_folder(root: Path) -> str:
    nested = sorted(root.glob("*/Annotations"))
    if nested:
        return f"'{root}' has no folder 'Annotations'; did you mean voc:{nested[0].parent}?"
    return (
        f"'{root}' has no folder 'Annotations' and no XML files, so it is not a Pascal VOC "
        "dataset; use the folder that has them"
    )


def _image_stems(root: Path, annotations: Path, split: str, files: Mapping[str, Path]) -> list[str]:
    """Return the paths of the annotation files of a split, without suffix."""
    if not split:
        return list(files)
    lists = root / "ImageSets" / "Main"
    for text in (*(lists / f"{item}.txt" for item in split_names(split)), root / f"{split}.txt"):
        if text.is_file():
            return _read_list(text, files)
    for item in split_names(split):
        below = [stem for stem in files if stem.startswith(f"{item}/")]
        if below:
            return below
    splits = sorted(item.stem for item in lists.glob("*.txt"))
    splits += sorted({stem.partition("/")[0] for stem in files if "/" in stem})
    raise UsageError(
        f"there is no split '{split}' in '{lists if lists.is_dir() else annotations}'; choose from "
        f"{', '.join(splits) or 'none'}"
    )


def _read_list(path: Path, files: Mapping[str, Path]) -> list[str]:
    """Read a list of images; rows of the lists of single classes end with 1, 0 or -1."""
    try:
        rows = path.read_text(encoding="utf-8-sig").splitlines()
    except ValueError:
        raise UsageError(f"the list '{path}' is not UTF-8 text; save it as UTF-8") from None
    by_last = {plain_name(stem.rpartition("/")[2]): stem for stem in files}
    stems = []
    for row in filter(None, map(str.strip, rows)):
        stem = _known_stem(row, files, by_last)
        name, flag = (row, "") if stem else _split_flag(row)
        if flag != "-1":  # the image contains the class
            stems.append(stem or _known_stem(name, files, by_last) or name)
    return stems


def _split_flag(row: str) -> tuple[str, str]:
    """Split a row of the list of a class into the image and 1, 0 or -1."""
    name, *flag = row.rsplit(maxsplit=1)
    return (name, flag[0]) if flag in (["-1"], ["0"], ["1"]) else (row, "")


def _known_stem(row: str, files: Mapping[str, Path], by_last: Mapping[str, str]) -> str | None:
    """Return the annotation file that a row of a list names, with or without folder and suffix."""
    name = row.replace("\\", "/")
    path = Path(name)
    if path.suffix.lower() in {*EXTENSIONS, ".xml"}:
        name = path.with_suffix("").as_posix()
    return name if name in files else by_last.get(plain_name(name.rpartition("/")[2]))
