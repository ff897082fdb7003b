"""The XML file of one image of a Pascal VOC dataset."""

from __future__ import annotations

import codecs
import re
from math import isfinite
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError  # nosec B405

from realtime_ssd_training.data.image_finder import ImageFinder
from realtime_ssd_training.data.raw_dataset import RawImage, RawObject, parse_number

__all__ = ["read_annotation"]

_DECLARATION = re.compile(rb"^\s*<\?xml[^>]*?encoding\s*=\s*[\"']([\w.-]+)[\"'][^>]*\?>")


def read_annotation(path: Path, stem: str, finder: ImageFinder) -> tuple[RawImage, list[str]]:
    """Read the annotation of an image.

    Args:
        path: The XML file.
        stem: Its path within the dataset, without suffix.
        finder: Locates the image.

    Returns:
        The image with its objects, and descriptions of the objects that were skipped.

    Raises:
        ValueError: If the file is missing or is not XML, or its image is ambiguous.
    """
    tree = _parse(path)
    for node in tree.iter():  # names without a namespace
        node.tag = str(node.tag).rpartition("}")[2]
    names = [tree.findtext("filename") or "", tree.findtext("path") or ""]
    image = finder.find(stem, *(name for name in names if name.strip()))
    objects: list[RawObject] = []
    defects: dict[str, int] = {}
    for node in tree.findall("object"):
        try:
            objects.append(_parse_object(node))
        except ValueError as error:
            defects[str(error)] = defects.get(str(error), 0) + 1
    parent = stem.rpartition("/")[0]
    name = f"{parent}/{image.name}" if parent else image.name
    texts = [f"{count} objects {defect} were skipped" for defect, count in defects.items()]
    return RawImage(image, name, objects, _annotated_size(tree)), texts


def _parse(path: Path) -> Element:
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        data = path.read_bytes().strip()
        root: Element = fromstring(_as_utf8(data))
    except FileNotFoundError:
        raise ValueError("the annotation file does not exist") from None
    except (ParseError, DefusedXmlException, LookupError, ValueError, OSError) as error:
        raise ValueError(f"the annotation is not valid XML ({error})") from None
    return root


def _as_utf8(data: bytes) -> bytes:
    """Convert XML in an encoding that the parser does not have, as GB2312, to UTF-8."""
    declared = _DECLARATION.match(data)
    if declared is None:
        return data
    encoding = declared[1].decode()
    if codecs.lookup(encoding).name in ("utf-8", "utf-16", "iso8859-1", "ascii"):
        return data
    return data[declared.end() :].decode(encoding).encode()


def _annotated_size(tree: Element) -> tuple[int, int] | None:
    """Return the annotated size; some tools write 0, nothing or "None" where it is unknown."""
    try:
        size = [parse_number(tree.findtext(f"size/{side}") or "0") for side in ("width", "height")]
    except ValueError:
        return None
    return (int(size[0]), int(size[1])) if min(size) > 0 and isfinite(sum(size)) else None


def _parse_object(node: Element) -> RawObject:
    label = (node.findtext("name") or "").strip()
    if not label:
        raise ValueError("without a name")
    corners = [_corner(node, side) for side in ("xmin", "ymin", "xmax", "ymax")]
    x1, y1 = (_from_one_based(corner) for corner in corners[:2])
    difficult = (node.findtext("difficult") or "0").strip().lower() in ("1", "true", "yes")
    return RawObject(label, (x1, y1, corners[2], corners[3]), difficult)


def _corner(node: Element, side: str) -> float:
    try:
        return parse_number(node.findtext(f"bndbox/{side}") or "")
    except ValueError:
        raise ValueError(f"whose '{side}' is not a number") from None


def _from_one_based(corner: float) -> float:
    """Convert to counting from 0; tools that already count from 0 write 0 for the first pixel."""
    return max(corner - 1, 0.0) if corner >= 0 else corner
