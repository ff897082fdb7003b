"""Pascal VOC datasets: `Annotations`, `JPEGImages` and `ImageSets/Main`."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError  # nosec B405

from realtime_ssd.core.errors import UsageError
from realtime_ssd_training.data.classes import ClassSelection
from realtime_ssd_training.data.file_dataset import (
    FileDataset,
    RawImage,
    RawObject,
    build_file_dataset,
)
from realtime_ssd_training.data.images import list_images
from realtime_ssd_training.data.sample import Problem

__all__ = ["open_voc"]


def open_voc(name: str, root: Path, split: str, selection: ClassSelection) -> FileDataset:
    """Open a Pascal VOC dataset (VOC2007 development kit, section 4).

    VOC counts pixels from 1 and includes both corners, so (1, 1, W, H) is the whole image; it
    becomes (0, 0, W, H).

    Args:
        name: Specification the dataset is opened with.
        root: Folder with `Annotations` and `JPEGImages`.
        split: Name of a list in `ImageSets/Main`; empty for all annotation files.
        selection: Classes to read; by default all names that occur, sorted.

    Raises:
        UsageError: If a folder or the split is missing.
    """
    for folder in ("Annotations", "JPEGImages"):
        if not (root / folder).is_dir():
            raise UsageError(_missing_folder(root, folder))
    images = {path.stem: path for path in list_images(root / "JPEGImages")}
    problems: list[Problem] = []
    raw_images = []
    for stem in _image_stems(root, split):
        path = root / "Annotations" / f"{stem}.xml"
        try:
            raw_images.append(_read_annotation(path, stem, images, root))
        except ValueError as error:
            problems.append(Problem(str(path), f"{error}; it was skipped"))
    labels = sorted({item.label for raw in raw_images for item in raw.objects})
    return build_file_dataset(name, raw_images, selection.map_classes(labels), problems)


def _missing_folder(root: Path, folder: str) -> str:
    nested = sorted(root.glob("*/Annotations"))
    hint = f"did you mean voc:{nested[0].parent}?" if nested else "use the folder that has both"
    return f"'{root}' has no folder '{folder}', so it is not a Pascal VOC dataset; {hint}"


def _image_stems(root: Path, split: str) -> list[str]:
    """Return the stems of the file names of a split."""
    if not split:
        return sorted(path.stem for path in (root / "Annotations").glob("*.xml"))
    folder = root / "ImageSets" / "Main"
    path = folder / f"{split}.txt"
    if not path.is_file():
        splits = sorted(item.stem for item in folder.glob("*.txt"))
        raise UsageError(
            f"there is no split '{split}' in '{folder}'; choose from {', '.join(splits) or 'none'}"
        )
    try:
        rows = [row.split() for row in path.read_text(encoding="utf-8-sig").splitlines()]
    except ValueError:
        raise UsageError(f"the list '{path}' is not UTF-8 text; save it as UTF-8") from None
    # The lists of single classes have a second column; -1 marks images without the class.
    return [row[0] for row in rows if row and row[1:] != ["-1"]]


def _read_annotation(path: Path, stem: str, images: dict[str, Path], root: Path) -> RawImage:
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import parse

    try:
        tree: Element = parse(path).getroot()
    except FileNotFoundError:
        raise ValueError("the annotation file does not exist") from None
    except (ParseError, DefusedXmlException, LookupError, OSError) as error:
        raise ValueError(f"the annotation is not valid XML ({error})") from None
    filename = tree.findtext("filename") or f"{stem}.jpg"
    image = images.get(stem, root / "JPEGImages" / Path(filename).name)
    objects = [_parse_object(node) for node in tree.findall("object")]
    return RawImage(image, image.name, objects, _annotated_size(tree))


def _annotated_size(tree: Element) -> tuple[int, int] | None:
    size = [_number(tree.findtext(f"size/{side}") or "0", side) for side in ("width", "height")]
    return (int(size[0]), int(size[1])) if min(size) > 0 and isfinite(sum(size)) else None


def _parse_object(node: Element) -> RawObject:
    label = (node.findtext("name") or "").strip()
    if not label:
        raise ValueError("an object has no name")
    corners = [
        _number(node.findtext(f"bndbox/{side}"), side) for side in ("xmin", "ymin", "xmax", "ymax")
    ]
    x1, y1 = (_from_one_based(corner) for corner in corners[:2])
    difficult = (node.findtext("difficult") or "0").strip() == "1"
    return RawObject(label, (x1, y1, corners[2], corners[3]), difficult)


def _from_one_based(corner: float) -> float:
    """Convert to counting from 0; tools that already count from 0 write 0 for the first pixel."""
    return max(corner - 1, 0.0) if corner >= 0 else corner


def _number(text: str | None, side: str) -> float:
    try:
        return float(text or "")
    except ValueError:
        raise ValueError(f"'{side}' of an object or of the size is not a number") from None
