"""Class mapping: how the class names of a dataset become labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.printable import printable
from realtime_ssd_training.data.sample import Problem

__all__ = [
    "BACKGROUND",
    "ClassMapping",
    "ClassSelection",
    "format_names",
    "parse_classes",
    "parse_remap",
]

BACKGROUND = "background"
_LONGEST_NAME = 256


def format_names(names: Sequence[str], limit: int = 6) -> str:
    """Return names separated by commas, abbreviated after the first `limit` of them."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def parse_classes(text: str | None) -> list[str] | None:
    """Parse the classes to keep.

    Args:
        text: Names separated by commas; None or an empty text keeps all.
    """
    return [name.strip() for name in (text or "").split(",") if name.strip()] or None


def parse_remap(text: str | None) -> dict[str, str] | None:
    """Parse new names of classes.

    Args:
        text: "OLD=NEW" pairs separated by commas; None or an empty text renames no class.

    Raises:
        UsageError: If a pair has another form.

    Example:
        >>> parse_remap("van=car, lorry=truck")
        {'van': 'car', 'lorry': 'truck'}
    """
    if not text:
        return None
    remap = {}
    for pair in text.split(","):
        old, separator, new = (item.strip() for item in pair.partition("="))
        if not (old and separator and new):
            raise UsageError(
                f"'{pair.strip()}' is not a pair of class names; write OLD=NEW, as in van=car"
            )
        remap[old] = new
    return remap


@dataclass(frozen=True, slots=True)
class ClassSelection:
    """The labels, new names and classes the user selects.

    Attributes:
        labels: All labels, "background" first, for example those of a model; None uses the
            classes of the dataset.
        remap: New names of classes by their old ones; several classes may share a new name.
        classes: The classes to keep, by their new names; None keeps all.
    """

    labels: Sequence[str] | None = None
    remap: Mapping[str, str] = field(default_factory=dict)
    classes: Sequence[str] | None = None

    def map_classes(self, names: Sequence[str], ids: Sequence[int] = ()) -> ClassMapping:
        """Return the mapping from the classes of a dataset to labels.

        Args:
            names: Class names of the dataset, in its order.
            ids: Category id of each name, for formats that have them.

        Raises:
            UsageError: If labels, remap and classes contradict each other or the dataset.
        """
        renamed = list(dict.fromkeys(self.remap.get(name, name) for name in names))
        labels = self._labels([name for name in renamed if name.casefold() != BACKGROUND])
        self._check(labels, names)
        id_of: dict[str, int] = {}
        for name, number in zip(names, ids, strict=False):
            id_of.setdefault(self.remap.get(name, name), number)
            if name in labels:
                id_of[name] = number
        category_ids = tuple(id_of.get(name, index) for index, name in enumerate(labels))
        return ClassMapping(labels, category_ids, self, tuple(names))

    def _labels(self, names: list[str]) -> tuple[str, ...]:
        if self.labels is not None:
            return tuple(self.labels)
        return (BACKGROUND, *(names if self.classes is None else self.classes))

    def _check(self, labels: tuple[str, ...], names: Sequence[str]) -> None:
        if labels == (BACKGROUND,) and self.labels is None:
            raise UsageError("the dataset has no objects; check its annotations")
        if labels[:1] != (BACKGROUND,) or len(labels) < 2:
            raise UsageError(
                f"the labels {list(labels)[:3]} are invalid; the first must be '{BACKGROUND}', "
                "followed by at least one class"
            )
        for name in labels:
            if printable(name, _LONGEST_NAME) != name:
                raise UsageError(
                    f"the class name '{printable(name, 60)}' has control characters or more than "
                    f"{_LONGEST_NAME} characters; rename it with `remap` or in the dataset"
                )
        known = labels if self.labels is not None else {self.remap.get(n, n) for n in names}
        for name in self.classes or ():
            if name not in known:
                raise UsageError(
                    f"there is no class '{name}' in the dataset; choose from "
                    f"{', '.join(sorted(set(known) - {BACKGROUND}))}"
                )


@dataclass(slots=True)
class ClassMapping:
    """The labels of a dataset, and the label of each of its class names.

    Attributes:
        labels: Class names, "background" first.
        category_ids: Category id of each label.
        selection: The user's selection.
        names: Class names of the dataset.
    """

    labels: tuple[str, ...]
    category_ids: tuple[int, ...]
    selection: ClassSelection
    names: tuple[str, ...]
    _ids: dict[str, int] = field(init=False)
    _unknown: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ids = {name: index for index, name in enumerate(self.labels) if index}

    def find(self, name: str, file: str) -> int | None:
        """Return the class id of a name, or None for a class that is excluded or unknown.

        Args:
            name: Class name in the dataset.
            file: File that uses it, for the report of unknown classes.
        """
        name = self.selection.remap.get(name, name)
        if self.selection.classes is not None and name not in self.selection.classes:
            return None
        label = self._ids.get(name)
        if label is None:
            self._unknown.setdefault(name, []).append(file)
        return label

    def problems(self, dataset: str) -> list[Problem]:
        """Return one problem per unused new name and per unknown class, with its first file.

        Args:
            dataset: Name of the dataset.
        """
        unused = [name for name in self.selection.remap if name not in self.names]
        return [Problem(dataset, f"there is no class '{name}' to rename") for name in unused] + [
            Problem(
                files[0],
                f"class '{name}' is not among the labels; {len(files)} boxes in "
                f"{len(set(files))} files were skipped",
            )
            for name, files in self._unknown.items()
        ]
