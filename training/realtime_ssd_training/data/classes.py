"""Which class names of a data set become which labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from realtime_ssd.core.errors import UsageError
from realtime_ssd_training.data.sample import Problem

__all__ = ["BACKGROUND", "Classes", "Selection", "listed", "parse_classes", "parse_remap"]

BACKGROUND = "background"


def listed(names: Sequence[str], most: int = 6) -> str:
    """Name some classes, and how many there are besides."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def parse_classes(text: str | None) -> list[str] | None:
    """Read the classes to keep from a command line.

    Args:
        text: Names divided by commas; None or nothing keeps all.
    """
    return [name.strip() for name in (text or "").split(",") if name.strip()] or None


def parse_remap(text: str | None) -> dict[str, str] | None:
    """Read new names of classes from a command line.

    Args:
        text: "OLD=NEW" for each, divided by commas; None or nothing renames none.

    Raises:
        UsageError: If a part is not of that form.

    Example:
        >>> parse_remap("van=car, lorry=truck")
        {'van': 'car', 'lorry': 'truck'}
    """
    if not text:
        return None
    remap = {}
    for part in text.split(","):
        old, sign, new = (word.strip() for word in part.partition("="))
        if not (old and sign and new):
            raise UsageError(f"'{part.strip()}' renames no class; write OLD=NEW, as in van=car")
        remap[old] = new
    return remap


@dataclass(frozen=True, slots=True)
class Selection:
    """What the user wants of the classes of a data set.

    Attributes:
        labels: All labels, "background" first, for example those of a model; None takes the
            classes of the data set.
        remap: New names of classes; several may get the same name.
        only: The classes to keep, by their new names; None keeps all.
    """

    labels: Sequence[str] | None = None
    remap: Mapping[str, str] = field(default_factory=dict)
    only: Sequence[str] | None = None

    def classes(self, found: Sequence[str], ids: Sequence[int] = ()) -> Classes:
        """Settle the labels for a data set.

        Args:
            found: Names of its classes in its own order.
            ids: Category id of each name, where the data set has them.

        Raises:
            UsageError: If labels, remap and only do not fit together or to the data set.
        """
        renamed = list(dict.fromkeys(self.remap.get(name, name) for name in found))
        labels = self._labels([name for name in renamed if name != BACKGROUND])
        self._check(labels, found)
        numbers: dict[str, int] = {}
        for name, number in zip(found, ids, strict=False):
            numbers.setdefault(self.remap.get(name, name), number)
            if name in labels:
                numbers[name] = number
        category_ids = tuple(numbers.get(name, k) for k, name in enumerate(labels))
        return Classes(labels, category_ids, self, tuple(found))

    def _labels(self, found: list[str]) -> tuple[str, ...]:
        if self.labels is not None:
            return tuple(self.labels)
        return (BACKGROUND, *(found if self.only is None else self.only))

    def _check(self, labels: tuple[str, ...], found: Sequence[str]) -> None:
        if labels == (BACKGROUND,) and self.labels is None:
            raise UsageError("no image of the data has an object; look at its annotations")
        if labels[:1] != (BACKGROUND,) or len(labels) < 2:
            raise UsageError(
                f"the labels {list(labels)[:3]} do not fit; the data needs '{BACKGROUND}' first "
                "and then at least one class"
            )
        known = labels if self.labels is not None else {self.remap.get(n, n) for n in found}
        for name in self.only or ():
            if name not in known:
                raise UsageError(
                    f"the class '{name}' to keep does not occur; choose from "
                    f"{', '.join(sorted(set(known) - {BACKGROUND}))}"
                )


@dataclass(slots=True)
class Classes:
    """The labels of a data set, and which of its names lead to them.

    Attributes:
        labels: Class names, "background" first.
        category_ids: Category id of each label.
        selection: What the user asked for.
        found: Names of the data set.
    """

    labels: tuple[str, ...]
    category_ids: tuple[int, ...]
    selection: Selection
    found: tuple[str, ...]
    _ids: dict[str, int] = field(init=False)
    _unknown: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ids = {name: k for k, name in enumerate(self.labels) if k}

    def find(self, name: str, file: str) -> int | None:
        """Give the class id of a name; None for a class that is not wanted or not known.

        Args:
            name: Name in the data set.
            file: File it stands in, for the report of unknown classes.
        """
        name = self.selection.remap.get(name, name)
        if self.selection.only is not None and name not in self.selection.only:
            return None
        label = self._ids.get(name)
        if label is None:
            self._unknown.setdefault(name, []).append(file)
        return label

    def problems(self, data: str) -> list[Problem]:
        """Report every unknown class once, with the first file it stands in.

        Args:
            data: Name of the data set, for new names of classes that do not occur in it.
        """
        idle = [name for name in self.selection.remap if name not in self.found]
        return [
            Problem(data, f"no class is called '{name}', so that nothing was renamed")
            for name in idle
        ] + [
            Problem(
                files[0],
                f"class '{name}' is not among the labels; {len(files)} boxes of it in "
                f"{len(set(files))} files were skipped",
            )
            for name, files in self._unknown.items()
        ]
