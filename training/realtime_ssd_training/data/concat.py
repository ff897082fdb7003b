"""Concatenated and repeated datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from realtime_ssd.core.errors import UsageError
from realtime_ssd_training.data.classes import ClassSelection
from realtime_ssd_training.data.dataset_factory import build, read_annotations
from realtime_ssd_training.data.sample import Annotation, Dataset, Sample

__all__ = ["ConcatDataset", "open_datasets", "split_specs"]


def split_specs(text: str) -> list[str]:
    """Return the specifications of datasets that are joined by " + "."""
    return [part.strip() for part in text.split(" + ")]


def open_datasets(
    text: str,
    labels: Sequence[str] | None = None,
    *,
    remap: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
    repeat: int = 1,
) -> Dataset:
    """Open one or several datasets as one.

    Args:
        text: A dataset as `open_dataset` reads it, or several joined by " + ".
        labels: Class names, "background" first; None uses those of all datasets: of the first in
            its order, followed by new ones of the others.
        remap: New names of classes, applied first.
        classes: Names of the classes to keep; None keeps all.
        repeat: How often an epoch contains every image.

    Raises:
        UsageError: If a dataset does not exist, or there is no image.
    """
    sources = [read_annotations(spec) for spec in split_specs(text)]
    names = list(dict.fromkeys(name for source in sources for name in source.classes))
    remap = remap or {}
    if labels is None and len(sources) > 1 and names:
        labels = ClassSelection(None, remap, classes).map_classes(names).labels
    datasets = [
        # A class to rename is missing only if no dataset has it.
        build(source, ClassSelection(labels, _relevant(remap, source.classes, names), classes))
        for source in sources
    ]
    whole = datasets[0] if len(datasets) == 1 else ConcatDataset(datasets)
    if not len(whole):
        raise UsageError(f"the dataset '{text}' has no images; check its path")
    return ConcatDataset([whole] * repeat) if repeat > 1 else whole


def _relevant(
    remap: Mapping[str, str], classes: Sequence[str], all_classes: Sequence[str]
) -> dict[str, str]:
    return {old: new for old, new in remap.items() if old in classes or old not in all_classes}


class ConcatDataset(Dataset):
    """A concatenation of datasets with the same classes.

    Args:
        datasets: At least one dataset; the same one may occur several times.
    """

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        distinct = list({id(dataset): dataset for dataset in datasets}.values())
        problems = [problem for dataset in distinct for problem in dataset.problems]
        name = " + ".join(dataset.name for dataset in distinct)
        same_ids = all(dataset.category_ids == datasets[0].category_ids for dataset in distinct)
        ids = datasets[0].category_ids if same_ids else tuple(range(len(datasets[0].labels)))
        super().__init__(name, datasets[0].labels, ids, problems)
        self.datasets = tuple(datasets)

    def _locate(self, index: int) -> tuple[Dataset, int]:
        for dataset in self.datasets:
            if index < len(dataset):
                return dataset, index
            index -= len(dataset)
        raise IndexError(index)

    def __len__(self) -> int:
        return sum(len(dataset) for dataset in self.datasets)

    def __getitem__(self, index: int) -> Sample:
        dataset, offset = self._locate(index)
        return dataset[offset]

    def annotation(self, index: int) -> Annotation:
        """Return the ground truth of an image; see `Dataset.annotation`."""
        dataset, offset = self._locate(index)
        return dataset.annotation(offset)

    def image_id(self, index: int) -> int:
        """Return the number of an image, from 1; ids of several datasets may collide."""
        return index + 1

    def image_file(self, index: int) -> Path | None:
        """Return the file of an image; see `Dataset.image_file`."""
        dataset, offset = self._locate(index)
        return dataset.image_file(offset)
