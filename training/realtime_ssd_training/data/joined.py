"""What a run trains on: data sets joined and repeated, and their augmentation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.spec import InputSpec
from realtime_ssd_training.data import open_dataset
from realtime_ssd_training.data.augment import SSDAugmentation
from realtime_ssd_training.data.sample import Annotation, Dataset, Sample

__all__ = ["Joined", "build_augmentation", "open_set"]


def open_set(
    text: str,
    labels: Sequence[str] | None = None,
    *,
    remap: Mapping[str, str] | None = None,
    only: Sequence[str] | None = None,
    repeat: int = 1,
) -> Dataset:
    """Open what a recipe trains or scores on.

    Args:
        text: One data set as `open_dataset` reads it, or several joined by " + ".
        labels: Class names, "background" first; None takes those of the first set.
        remap: New names of classes, applied first.
        only: Names of the classes to keep; None keeps all.
        repeat: How often every image comes in an epoch.

    Raises:
        UsageError: If there is no data set, or it has no image.
    """
    sets: list[Dataset] = []
    for part in text.split(" + "):
        sets.append(open_dataset(part.strip(), labels, remap, only))
        labels = labels or sets[0].labels
    whole = sets[0] if len(sets) == 1 else Joined(sets)
    if not len(whole):
        raise UsageError(f"the data set '{text}' has no images; check its path")
    return Joined([whole] * repeat) if repeat > 1 else whole


class Joined(Dataset):
    """Several data sets of the same classes, one after another.

    Args:
        parts: The data sets, at least one; the same one may come several times.
    """

    def __init__(self, parts: Sequence[Dataset]) -> None:
        different = list({id(part): part for part in parts}.values())
        problems = [problem for part in different for problem in part.problems]
        name = " + ".join(part.name for part in different)
        super().__init__(name, parts[0].labels, parts[0].category_ids, problems)
        self.parts = tuple(parts)

    def _find(self, index: int) -> tuple[Dataset, int]:
        for part in self.parts:
            if index < len(part):
                return part, index
            index -= len(part)
        raise IndexError(index)

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def __getitem__(self, index: int) -> Sample:
        part, place = self._find(index)
        return part[place]

    def annotation(self, index: int) -> Annotation:
        """Give the ground truth of an image; see `Dataset.annotation`."""
        part, place = self._find(index)
        return part.annotation(place)

    def image_id(self, index: int) -> int:
        """Number the images from 1, as the ids of the parts may collide."""
        return index + 1


def build_augmentation(spec: InputSpec, changes: Mapping[str, Any]) -> SSDAugmentation:
    """Build the augmentation of a recipe.

    Args:
        spec: Input of the model.
        changes: Fields of `SSDAugmentation` by name; "whole" in `overlaps` stands for no crop.

    Raises:
        UsageError: If there is no such field, or its value does not fit.
    """
    for key, value in changes.items():
        if key not in _FIELDS:
            raise UsageError(f"'augment' has no entry '{key}'; it has {', '.join(_FIELDS)}")
        fits, wanted = _FIELDS[key]
        if not fits(value):
            raise UsageError(f"'augment: {key}' is {value!r}; it must be {wanted}")
    values: dict[str, Any] = {
        key: tuple(None if item == "whole" else item for item in value)
        if isinstance(value, list | tuple)
        else value
        for key, value in changes.items()
    }
    return SSDAugmentation(spec, **values)


def _within(low: float, high: float = inf) -> _Field:
    wanted = f"a number from {low:g}" + ("" if high == inf else f" to {high:g}")
    return lambda value: _is_number(value, low, high), wanted


def _is_number(value: Any, low: float, high: float) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and low <= value <= high


def _is_factors(value: Any) -> bool:
    pair = isinstance(value, list | tuple) and len(value) == 2
    return pair and all(_is_number(item, 0, inf) for item in value) and value[0] <= value[1]


def _is_overlaps(value: Any) -> bool:
    listed = isinstance(value, list | tuple) and len(value) > 0
    return listed and all(item in ("whole", None) or _is_number(item, 0, 1) for item in value)


_Field = tuple[Callable[[Any], bool], str]
_FACTORS: _Field = (_is_factors, "a list of a smallest and a largest factor")
_FIELDS: dict[str, _Field] = {
    "photometric": _within(0, 1),
    "brightness": _within(0, 255),
    "contrast": _FACTORS,
    "saturation": _FACTORS,
    "hue": _within(0, 180),
    "zoom_out": _within(0, 1),
    "zoom_limit": _within(1, 20),
    "overlaps": (_is_overlaps, 'a list of overlaps from 0 to 1, or "whole" for no crop'),
    "crop_scale": _within(0.01, 1),
    "crop_ratio": _within(1),
    "flip": _within(0, 1),
}
