"""Whether boxes refer to photos as stored or as rotated by EXIF, judged by the annotations.

Phones store photos in the orientation of the sensor, with an EXIF tag that says how to rotate them.
Some annotation tools count pixels in the rotated photo, others in the stored one.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from realtime_ssd_training.data.images import Header
from realtime_ssd_training.data.raw_dataset import RawImage
from realtime_ssd_training.data.sample import Problem

__all__ = ["check_size", "decide_rotations"]

_SLACK = 1.0
"""Pixels by which a box may exceed the image it refers to."""


def check_size(raw: RawImage, header: Header) -> None:
    """Check that the annotated size is that of the image, rotated or not.

    Raises:
        ValueError: If it is another one.
    """
    if raw.size is None or min(raw.size) <= 0 or raw.size in (header.stored, header.displayed):
        return
    (width, height), (annotated_width, annotated_height) = header.displayed, raw.size
    raise ValueError(
        f"the image is {width}x{height} pixels but annotated as "
        f"{annotated_width}x{annotated_height}"
    )


def decide_rotations(
    images: Sequence[tuple[RawImage, Header]],
) -> tuple[list[bool], list[Problem]]:
    """Decide for every image whether its EXIF orientation applies.

    The annotated size, or else boxes that fit only one of both sizes, decide where rotation
    exchanges width and height. Other rotated images follow the majority of these; without any,
    they are rotated, as annotation tools and viewers do. That is reported.

    Args:
        images: Images with their headers.

    Returns:
        Whether to apply EXIF to each image, and the problem of the images without evidence.
    """
    votes = [_evidence(raw, header) for raw, header in images]
    rotated, stored = votes.count(True), votes.count(False)
    default = rotated >= stored
    unclear = [
        raw
        for (raw, header), vote in zip(images, votes, strict=True)
        if header.rotated and vote is None and raw.objects
    ]
    problems = []
    if unclear:
        way = "rotated by EXIF" if default else "stored"
        seen = f"as in {rotated if default else stored} of {rotated + stored} images that show it"
        reason = seen if rotated or stored else "since nothing shows it"
        text = (
            f"{len(unclear)} images have an EXIF rotation; their boxes were taken to refer to the "
            f"images as {way}, {reason}"
        )
        problems.append(Problem(str(unclear[0].path), text))
    return [default if vote is None else vote for vote in votes], problems


def _evidence(raw: RawImage, header: Header) -> bool | None:
    """Return whether EXIF applies to an image, or None if that cannot be seen."""
    if not header.rotated or header.stored == header.displayed:
        return None
    if raw.size is not None and min(raw.size) > 0:
        return raw.size == header.displayed
    if raw.fractions:
        return None
    fits = [_contains(raw, size) for size in (header.displayed, header.stored)]
    return fits[0] if fits[0] != fits[1] else None


def _contains(raw: RawImage, size: tuple[int, int]) -> bool:
    """Return whether all boxes of an image are inside a width and height."""
    ends = [item.box[2:] for item in raw.objects if all(isfinite(side) for side in item.box)]
    return all(x <= size[0] + _SLACK and y <= size[1] + _SLACK for x, y in ends)
