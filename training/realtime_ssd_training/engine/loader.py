"""Training batches that depend on seed, epoch and index only, not on the number of workers."""

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
from realtime_ssd_training.engine.loader_workers import explain_failures

__all__ = ["Augment", "Batch", "Loader", "LoaderOptions", "Target", "normalize"]

Augment = Callable[[Sample, np.random.Generator], Sample]
"""Converts a dataset sample to an augmented one at input size."""

_Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class LoaderOptions:
    """Batching, order and workers of a `Loader`.

    Attributes:
        batch_size: Images per batch of one process.
        workers: Processes that read and augment images; 0 uses the calling process.
        seed: Seed of order and augmentation.
        shuffle: Whether every epoch has its own random order.
        drop_last: Whether to drop an incomplete last batch, unless it is the only one, and to give
            every rank the same number of images.
        rank: Index of this process.
        world_size: Number of training processes.
        pin_memory: Whether batches are in page-locked memory, for transfer to a GPU.
        allow_empty: Whether a batch without any readable image is returned instead of raising an
            error.
    """

    batch_size: int = 32
    workers: int = 0
    seed: int = 0
    shuffle: bool = True
    drop_last: bool = True
    rank: int = 0
    world_size: int = 1
    pin_memory: bool = False
    allow_empty: bool = False


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
        boxes: M × 4 float32 of all images concatenated, fractions of the input.
        labels: M int64.
        difficult: M bool.
        crowd: M bool.
        counts: Number of boxes of each image.
        names: Name of each image.
        indices: Dataset index of each image.
        problems: Images that could not be read and are missing from the batch; a loader reports
            each of them only once.
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
        """The ground truth per image."""
        columns = (self.boxes, self.labels, self.difficult | self.crowd)
        split = [torch.split(column, list(self.counts)) for column in columns]
        return [Target(*image) for image in zip(*split, strict=True)]

    def inputs(self, spec: InputSpec) -> Tensor:
        """Return the input of the network: N × 3 × H × W float32 in channels-last memory."""
        return normalize(self.images, spec)

    def to(self, device: torch.device | str) -> Batch:
        """Return a copy on a device; from pinned memory the copy is asynchronous."""
        return self._map_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def with_difficult_used(self) -> Batch:
        """Return the batch with difficult objects as ordinary ones."""
        return replace(self, difficult=torch.zeros_like(self.difficult))

    def split(self, parts: int) -> list[Batch]:
        """Return the batch in at most `parts` parts with about equally many images."""
        size = -(-len(self) // parts)
        if size >= len(self):
            return [self]
        ends = np.cumsum((0, *self.counts)).tolist()
        return [self._slice(k, min(k + size, len(self)), ends) for k in range(0, len(self), size)]

    def _slice(self, start: int, stop: int, ends: list[int]) -> Batch:
        images, objects = slice(start, stop), slice(ends[start], ends[stop])
        return Batch(
            self.images[images],
            self.boxes[objects],
            self.labels[objects],
            self.difficult[objects],
            self.crowd[objects],
            self.counts[images],
            self.names[images],
            self.indices[images],
        )

    def pin_memory(self) -> Batch:
        """Return a copy in page-locked memory."""
        return self._map_tensors(Tensor.pin_memory)

    def _map_tensors(self, function: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self,
            images=function(self.images),
            boxes=function(self.boxes),
            labels=function(self.labels),
            difficult=function(self.difficult),
            crowd=function(self.crowd),
        )


def normalize(images: Tensor, spec: InputSpec) -> Tensor:
    """Normalize resized images exactly as `realtime_ssd.core.preprocess` does, on any device.

    Args:
        images: N × H × W × 3 uint8, BGR.
        spec: Input specification of the model.

    Returns:
        N × 3 × H × W float32 in channels-last memory.
    """
    if spec.channels == "RGB":
        images = images.flip(-1)
    mean = torch.tensor(spec.mean, dtype=torch.float32, device=images.device)
    scale = torch.tensor(spec.scale, dtype=torch.float32, device=images.device)
    return images.float().sub_(mean).mul_(scale).permute(0, 3, 1, 2)


class Loader:
    """Yields the batches of a dataset, epoch by epoch.

    The pixels of a sample depend on seed, epoch and index only, and the order of an epoch on seed
    and epoch, so that training can stop after any batch and resume with the next one.

    Args:
        dataset: The dataset.
        spec: Input specification of the model.
        options: Batch size, workers, order.
        augment: Converts samples to input size; None only resizes.

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
        self._sampler = _EpochSampler(len(dataset), self.options)
        self._reported: set[Problem] = set()
        self._batches: DataLoader[Any] = DataLoader(
            _Samples(dataset, spec, self.options.seed, augment),
            batch_sampler=self._sampler,
            num_workers=self.options.workers,
            collate_fn=_Collate(spec),
            pin_memory=self.options.pin_memory,
            worker_init_fn=_init_worker,
            persistent_workers=self.options.workers > 0,
        )

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch."""
        return self._sampler.total

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Return an iterator over the batches of an epoch.

        Args:
            number: Index of the epoch, from 0.
            start: Number of batches to skip, those done before an interruption.

        Raises:
            RealtimeSSDError: From the iterator, if a worker ended unexpectedly, or if no image of a
                batch can be read, unless `allow_empty` is set.
        """
        self._sampler.epoch, self._sampler.start = number, start
        with explain_failures(self._batches):
            batches = iter(self._batches)
        return map(self._with_new_problems, self._explained(batches))

    def _explained(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        with explain_failures(self._batches):
            yield from batches

    def _with_new_problems(self, batch: Batch) -> Batch:
        """Return a batch without the problems that earlier batches reported."""
        if not len(batch) and not self.options.allow_empty:
            first = batch.problems[0]
            raise RealtimeSSDError(f"no image of a batch can be read; the first: {first}")
        new = tuple(problem for problem in batch.problems if problem not in self._reported)
        self._reported.update(new)
        return batch if len(new) == len(batch.problems) else replace(batch, problems=new)

    def close(self) -> None:
        """Stop the workers; the next epoch starts new ones. May be called any number of times."""
        # A data loader stops its workers when its iterator is deleted.
        self._batches._iterator = None


class _EpochSampler(Sampler[list[_Key]]):
    """Lists the (epoch, index) keys of one rank, batch by batch."""

    def __init__(self, size: int, options: LoaderOptions) -> None:
        self.size, self.options = size, options
        self.epoch = self.start = 0
        self.total = len(self._batches(0))

    def __len__(self) -> int:
        return max(0, self.total - self.start)

    def __iter__(self) -> Iterator[list[_Key]]:
        # A list, not a generator: `epoch` may have changed before the first batch is requested.
        batches = self._batches(self.epoch)[self.start :]
        return iter([[(self.epoch, index) for index in batch.tolist()] for batch in batches])

    def _batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the indices of each batch of this rank.

        The batches of all processes are cut first and then shared out, so that the steps do not
        depend on the number of processes.
        """
        order, rank, ranks = self._order(epoch), self.options.rank, self.options.world_size
        size = self.options.batch_size * ranks
        batches = [order[k : k + size] for k in range(0, len(order), size)]
        incomplete = len(batches) > 1 and len(batches[-1]) < size
        if self.options.drop_last and incomplete:
            del batches[-1]
        return [batch[rank::ranks] for batch in batches]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """Return the order of all images; a single incomplete batch is padded for all ranks."""
        order = np.arange(self.size)
        if self.options.shuffle:
            order = np.random.default_rng([self.options.seed, epoch]).permutation(self.size)
        single = self.size < self.options.batch_size * self.options.world_size
        padding = -self.size % self.options.world_size if self.options.drop_last and single else 0
        return np.concatenate([order, np.resize(order, padding)])


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
    """Collates samples to a batch."""

    spec: InputSpec

    def __call__(self, items: Sequence[_Item]) -> Batch:
        samples = [item for _, item in items if isinstance(item, Sample)]
        problems = tuple(item for _, item in items if isinstance(item, Problem))
        size = np.array([self.spec.width, self.spec.height] * 2, np.float32)
        images = [sample.image for sample in samples]
        return Batch(
            images=torch.from_numpy(np.array(images, np.uint8)),
            boxes=_concatenate([sample.boxes / size for sample in samples]),
            labels=_concatenate([sample.labels for sample in samples]),
            difficult=_concatenate([sample.difficult for sample in samples]),
            crowd=_concatenate([sample.crowd for sample in samples]),
            counts=tuple(len(sample.labels) for sample in samples),
            names=tuple(sample.name for sample in samples),
            indices=tuple(index for index, item in items if isinstance(item, Sample)),
            problems=problems,
        )


def _concatenate(arrays: Sequence[NDArray[np.generic]]) -> Tensor:
    return torch.from_numpy(np.concatenate(arrays)) if arrays else torch.empty(0)


def _init_worker(_: int) -> None:
    """Isolate a worker from signals for the main process, and limit OpenCV to one thread.

    In its own process group, a worker does not receive Ctrl+C and stops with the main process.
    """
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(0)
