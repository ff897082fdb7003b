"""Batches for training: the same order and the same pixels, however many workers read them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from realtime_ssd.core.errors import RealtimeSSDError
from realtime_ssd.core.spec import InputSpec
from realtime_ssd_training.data.augment import resize_sample
from realtime_ssd_training.data.sample import Dataset, Problem, Sample, unreadable

__all__ = ["Augment", "Batch", "Loader", "LoaderOptions", "Target", "normalise"]

Augment = Callable[[Sample, np.random.Generator], Sample]
"""What turns a sample of a data set into one at input size."""

_Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class LoaderOptions:
    """How a data set is dealt out.

    Attributes:
        batch_size: Images of a batch, of one process.
        workers: Processes that read and augment; 0 does so in the calling one.
        seed: Start of all chance.
        shuffle: Whether every epoch has an order of its own.
        drop_last: Whether a last batch that is not full is left out, unless it is the only one,
            and every rank gets equally many images.
        rank: Number of this process among those that train together.
        world_size: Number of those processes.
        pin_memory: Whether batches lie in page-locked memory, for a GPU.
        empty: Whether a batch of which no image can be read is dealt out too, and no error.
    """

    batch_size: int = 32
    workers: int = 0
    seed: int = 0
    shuffle: bool = True
    drop_last: bool = True
    rank: int = 0
    world_size: int = 1
    pin_memory: bool = False
    empty: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """The ground truth of one image of a batch.

    Attributes:
        boxes: N × 4 float32, x1, y1, x2, y2 as fractions of the input.
        labels: N int64, class ids from 1.
        ignored: N bool, difficult and crowd boxes.
    """

    boxes: Tensor
    labels: Tensor
    ignored: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Images with their ground truth.

    Attributes:
        images: N × H × W × 3 uint8, BGR, at input size.
        boxes: M × 4 float32 of all images one after another, fractions of the input.
        labels: M int64.
        difficult: M bool.
        crowd: M bool.
        counts: Number of boxes of each image.
        names: Name of each image.
        indices: Number of each image in the data set.
        problems: Images that could not be read and are therefore missing here; each is told of
            once in the life of a loader.
    """

    images: Tensor
    boxes: Tensor
    labels: Tensor
    difficult: Tensor
    crowd: Tensor
    counts: tuple[int, ...]
    names: tuple[str, ...]
    indices: tuple[int, ...]
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def targets(self) -> list[Target]:
        """The ground truth image by image."""
        parts = (self.boxes, self.labels, self.difficult | self.crowd)
        split = [torch.split(part, list(self.counts)) for part in parts]
        return [Target(*image) for image in zip(*split, strict=True)]

    def inputs(self, spec: InputSpec) -> Tensor:
        """Give the input of the network: N × 3 × H × W float32, channels last in memory."""
        return normalise(self.images, spec)

    def to(self, device: torch.device | str) -> Batch:
        """Copy the batch to a device, without waiting if it is pinned."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def difficult_used(self) -> Batch:
        """Give the batch with difficult objects as ordinary ones."""
        return replace(self, difficult=torch.zeros_like(self.difficult))

    def pin_memory(self) -> Batch:
        """Copy the batch to page-locked memory."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self,
            images=change(self.images),
            boxes=change(self.boxes),
            labels=change(self.labels),
            difficult=change(self.difficult),
            crowd=change(self.crowd),
        )


def normalise(images: Tensor, spec: InputSpec) -> Tensor:
    """Do what `realtime_ssd.core.preprocess` does after resizing, bit for bit, on any device.

    Args:
        images: N × H × W × 3 uint8, BGR.
        spec: Input of the model.

    Returns:
        N × 3 × H × W float32 in channels-last memory.
    """
    if spec.channels == "RGB":
        images = images.flip(-1)
    mean = torch.tensor(spec.mean, dtype=torch.float32, device=images.device)
    scale = torch.tensor(spec.scale, dtype=torch.float32, device=images.device)
    return images.float().sub_(mean).mul_(scale).permute(0, 3, 1, 2)


class Loader:
    """Deals a data set out in batches, epoch by epoch.

    A sample's pixels depend on seed, epoch and index alone, and the order of an epoch on seed and
    epoch, so that training can stop after any batch and go on with the next one.

    Args:
        dataset: The data set.
        spec: Input of the model.
        options: Batch size, workers, order.
        augment: Makes samples of input size; None only resizes.

    Example:
        >>> loader = Loader(data, model.spec.input, LoaderOptions(batch_size=8), augment)
        >>> for batch in loader.epoch(3, start=17):
        ...     scores, offsets = model(batch.inputs(model.spec.input))
    """

    def __init__(
        self,
        dataset: Dataset,
        spec: InputSpec,
        options: LoaderOptions | None = None,
        augment: Augment | None = None,
    ) -> None:
        self.options = options or LoaderOptions()
        self._plan = _Plan(len(dataset), self.options)
        self._told: set[Problem] = set()
        self._batches: DataLoader[Any] = DataLoader(
            _Samples(dataset, spec, self.options.seed, augment),
            batch_sampler=self._plan,
            num_workers=self.options.workers,
            collate_fn=_Collate(spec),
            pin_memory=self.options.pin_memory,
            worker_init_fn=_start_worker,
            persistent_workers=self.options.workers > 0,
        )

    def __len__(self) -> int:
        """Count the batches of a whole epoch."""
        return self._plan.total

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Give the batches of an epoch.

        Args:
            number: Number of the epoch, from 0.
            start: Batches to leave out, those done before an interruption.

        Raises:
            RealtimeSSDError: From the iterator, where no image of a batch can be read, unless
                the options allow such batches.
        """
        self._plan.epoch, self._plan.start = number, start
        return map(self._news, iter(self._batches))

    def _news(self, batch: Batch) -> Batch:
        """Leave out problems that an earlier batch has told of."""
        if not len(batch) and not self.options.empty:
            first = batch.problems[0]
            raise RealtimeSSDError(f"no image of a batch can be read; the first: {first}")
        fresh = tuple(problem for problem in batch.problems if problem not in self._told)
        self._told.update(fresh)
        return batch if len(fresh) == len(batch.problems) else replace(batch, problems=fresh)

    def close(self) -> None:
        """End the workers; the next epoch starts new ones. May be called any number of times."""
        # A data loader ends its workers when its iterator goes.
        self._batches._iterator = None


class _Plan(Sampler[list[_Key]]):
    """Lists (epoch, index) keys batch by batch, for one rank."""

    def __init__(self, size: int, options: LoaderOptions) -> None:
        self.size, self.options = size, options
        self.epoch = self.start = 0
        self.total = len(self._batches(0))

    def __len__(self) -> int:
        return max(0, self.total - self.start)

    def __iter__(self) -> Iterator[list[_Key]]:
        # A list made now, not when the first batch is asked for: the epoch may be another by then.
        rest = self._batches(self.epoch)[self.start :]
        return iter([[(self.epoch, index) for index in batch.tolist()] for batch in rest])

    def _batches(self, epoch: int) -> list[NDArray[np.int64]]:
        own = self._order(epoch)[self.options.rank :: self.options.world_size]
        size = self.options.batch_size
        batches = [own[k : k + size] for k in range(0, len(own), size)]
        uneven = len(batches) > 1 and len(batches[-1]) < size
        return batches[:-1] if self.options.drop_last and uneven else batches

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """Order all images; where ranks must keep step, some come twice to fill them evenly."""
        order = np.arange(self.size)
        if self.options.shuffle:
            order = np.random.default_rng([self.options.seed, epoch]).permutation(self.size)
        missing = -self.size % self.options.world_size if self.options.drop_last else 0
        return np.concatenate([order, np.resize(order, missing)])


_Item = tuple[int, Sample | Problem]


class _Samples(TorchDataset[_Item]):
    """Reads and augments the sample of an (epoch, index) key."""

    def __init__(
        self, dataset: Dataset, spec: InputSpec, seed: int, augment: Augment | None
    ) -> None:
        self.dataset, self.spec, self.seed, self.augment = dataset, spec, seed, augment

    def __getitem__(self, key: _Key) -> _Item:
        epoch, index = key
        try:
            sample = self.dataset[index]
        except RealtimeSSDError as error:
            return index, unreadable(self.dataset, index, error)
        if self.augment is None:
            return index, resize_sample(sample, self.spec)
        return index, self.augment(sample, np.random.default_rng([self.seed, epoch, index]))


@dataclass(frozen=True, slots=True)
class _Collate:
    """Puts samples together to a batch."""

    spec: InputSpec

    def __call__(self, items: Sequence[_Item]) -> Batch:
        samples = [item for _, item in items if isinstance(item, Sample)]
        problems = tuple(item for _, item in items if isinstance(item, Problem))
        size = np.array([self.spec.width, self.spec.height] * 2, np.float32)
        images = [sample.image for sample in samples]
        return Batch(
            images=torch.from_numpy(np.array(images, np.uint8)),
            boxes=_joined([sample.boxes / size for sample in samples]),
            labels=_joined([sample.labels for sample in samples]),
            difficult=_joined([sample.difficult for sample in samples]),
            crowd=_joined([sample.crowd for sample in samples]),
            counts=tuple(len(sample.labels) for sample in samples),
            names=tuple(sample.name for sample in samples),
            indices=tuple(index for index, item in items if isinstance(item, Sample)),
            problems=problems,
        )


def _joined(parts: Sequence[NDArray[np.generic]]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts)) if parts else torch.empty(0)


def _start_worker(_: int) -> None:
    """Keep signals meant for the main process away, and leave the cores to the other workers.

    In a group of its own, a worker ends when the main process says so and not with Ctrl+C.
    """
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(0)
