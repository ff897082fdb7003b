"""Class names of the public datasets, in the order of the published detectors."""

from __future__ import annotations

from pathlib import Path

from realtime_ssd.core.errors import UsageError

__all__ = [
    "COCO_80",
    "COCO_91",
    "GAP",
    "LABEL_SETS",
    "VOC_21",
    "complete_labels",
    "numbered_labels",
    "read_label_lines",
    "read_labels",
]

_BACKGROUND_NAMES = ("background", "__background__", "bg")
GAP = "???"
"""Name of a score column without a category."""

_COCO_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
_COCO_NAMES = """
person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,
parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,
handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,
skateboard,surfboard,tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,banana,apple,
sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,dining table,
toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,book,
clock,vase,scissors,teddy bear,hair drier,toothbrush
"""
_VOC_NAMES = """
aeroplane,bicycle,bird,boat,bottle,bus,car,cat,chair,cow,diningtable,dog,horse,motorbike,person,
pottedplant,sheep,sofa,train,tvmonitor
"""


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.replace("\n", "").split(","))


def _with_gaps() -> tuple[str, ...]:
    """Return the names of the COCO ids 1 to 90, with gaps for unused ids."""
    names = iter(_names(_COCO_NAMES))
    return tuple(GAP if number in _COCO_GAPS else next(names) for number in range(1, 91))


COCO_80 = ("background", *_names(_COCO_NAMES))
"""Background and the 80 COCO categories without gaps (Caffe, lufficc)."""

COCO_91 = ("background", *_with_gaps())
"""Background and COCO ids 1 to 90, unused ids as `GAP` (TensorFlow, torchvision)."""

VOC_21 = ("background", *_names(_VOC_NAMES))
"""Background and the 20 Pascal VOC classes in alphabetical order."""


LABEL_SETS = {"coco": COCO_91, "voc": VOC_21, "person": ("background", "person")}
"""Classes of published models whose files have no names."""


def numbered_labels(count: int, *, background: bool = True) -> tuple[str, ...]:
    """Return `count` names: background unless the model has none, class 1, class 2, and so on."""
    names = tuple(f"class {number}" for number in range(1, count + 1))
    return ("background", *names[:-1]) if background else names


def read_labels(path: Path, count: int, *, background: bool = True) -> tuple[str, ...]:
    """Read class names from a text file.

    Args:
        path: Text file in UTF-8 with one name per line, with or without the background.
        count: Number of score columns of the model.
        background: Whether the first column is the background.

    Returns:
        `count` names. The background is called "background", whatever the file calls it.

    Raises:
        UsageError: If the file cannot be read or has another number of names.
    """
    return complete_labels(read_label_lines(path), count, str(path), background=background)


def read_label_lines(path: Path) -> list[str]:
    """Read the lines of a text file.

    Raises:
        UsageError: If the file cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the `labels` file '{path}' cannot be read: {error}") from error


def complete_labels(
    lines: list[str], count: int, origin: str, *, background: bool = True
) -> tuple[str, ...]:
    """Return the names of all score columns from the lines of a label file.

    Args:
        lines: One name per line, with or without the background.
        count: Number of score columns of the model.
        origin: The file, for the error message.
        background: Whether the first column is the background.

    Raises:
        UsageError: If the number of names does not fit.
    """
    names = [line.strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    has_background = bool(names) and names[0].casefold() in _BACKGROUND_NAMES
    if background and len(names) == count - 1 and not has_background:
        names.insert(0, "background")
    if not background and len(names) == count + 1 and names[0] in (GAP, "background"):
        del names[0]
    if len(names) != count:
        included = ", the background included" if background and has_background else ""
        expected = f"{count} with the background or {count - 1} without" if background else count
        raise UsageError(
            f"the `labels` file '{origin}' has {len(names)} names{included}, but the model has "
            f"{count} score columns; write one name per line, {expected}"
        )
    first = "background" if background else names[0] or GAP
    return (first, *(name or GAP for name in names[1:]))
