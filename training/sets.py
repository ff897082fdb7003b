"""The data sets of a training run: joined, repeated, kept in memory."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

from realtime_ssd.errors import UsageError
from training.data import open_dataset
from training.data.sample import Annotation, Dataset, Sample

__all__ = ["Joined", "Kept", "open_set"]


def open_set(
    text: str, labels: Sequence[str] | None = None, *, repeat: int = 1, keep: bool = False
) -> Dataset:
    """Open what a recipe trains or scores on.

    Args:
        text: One data set as `open_dataset` reads it, or several joined by " + ".
        labels: Class names, "background" first; None takes those of the first set.
        repeat: How often every image comes in an epoch.
        keep: Whether decoded images stay in memory.

    Raises:
        UsageError: If there is no data set, or it has no image.
    """
    sets: list[Dataset] = []
    for part in text.split(" + "):
        sets.append(open_dataset(part.strip(), labels))
        labels = labels or sets[0].labels
    whole = sets[0] if len(sets) == 1 else Joined.of(sets)
    if not len(whole):
        raise UsageError(f"the data set '{text}' has no images; check its path")
    if keep:
        whole = Kept.of(whole)
    return Joined.of([whole] * repeat) if repeat > 1 else whole


@dataclass(eq=False)
class Joined(Dataset):
    """Several data sets of the same classes, one after another."""

    parts: Sequence[Dataset] = ()

    @classmethod
    def of(cls, parts: Sequence[Dataset]) -> Joined:
        """Join data sets."""
        different = list({id(part): part for part in parts}.values())
        problems = [problem for part in different for problem in part.problems]
        name = " + ".join(part.name for part in parts)
        return cls(name, parts[0].labels, parts[0].category_ids, problems, parts)

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


@dataclass(eq=False)
class Kept(Dataset):
    """A data set whose decoded images stay in memory."""

    source: Dataset | None = None
    samples: Sequence[Sample] = ()

    @classmethod
    def of(cls, source: Dataset, workers: int = 2) -> Kept:
        """Read every image once, in several processes."""
        from rich.progress import track

        # Worker processes inherit nothing but the data set: threads of a forked OpenCV can hang.
        with ProcessPoolExecutor(workers, get_context("spawn"), _work, (source,)) as pool:
            reading = pool.map(_read, range(len(source)), chunksize=16)
            samples = list(track(reading, f"reading {source.name}", len(source)))
        return cls(
            source.name, source.labels, source.category_ids, source.problems, source, samples
        )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        return replace(sample, image=sample.image.copy())

    def annotation(self, index: int) -> Annotation:
        """Give the ground truth of an image; see `Dataset.annotation`."""
        return self._source.annotation(index)

    def image_id(self, index: int) -> int:
        """Give the id of an image; see `Dataset.image_id`."""
        return self._source.image_id(index)

    @property
    def _source(self) -> Dataset:
        if self.source is None:
            raise UsageError("a kept data set needs a source; build it with Kept.of")
        return self.source


_working: list[Dataset] = []


def _work(source: Dataset) -> None:
    _working[:] = [source]


def _read(index: int) -> Sample:
    return _working[0][index]
