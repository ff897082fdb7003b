"""Batches: reproducible for any number of workers and on resume; bad files reported once."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from realtime_ssd_training.data import Dataset, open_dataset
from realtime_ssd_training.data.augment import SSDAugmentation, resize_sample
from realtime_ssd_training.data.concat import open_datasets
from realtime_ssd_training.engine.loader import Batch, Loader, LoaderOptions

from realtime_ssd.core.errors import RealtimeSSDError
from realtime_ssd.core.spec import InputSpec
from tests.training.data.builders import write_image, write_text

SPEC = InputSpec(48, 40, "RGB", (123.0, 117.0, 104.0), (0.5, 0.25, 2.0))
AUGMENT = SSDAugmentation(SPEC)
OPTIONS = LoaderOptions(batch_size=4, seed=7)
COUNT = 11


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Eleven images with 0, 1, 2, 0, ... objects."""
    folder = tmp_path_factory.mktemp("loader")
    lines = []
    for k in range(COUNT):
        name = f"{k:02}.png"
        write_image(folder / name, 60 + k, 50, seed=k)
        boxes = [f"{name},{2 + 9 * n},3,{40 + n},{30 + k},cat" for n in range(k % 3)]
        lines += boxes or [f"{name},,,,,"]
    return open_dataset(f"csv:{write_text(folder / 'boxes.csv', chr(10).join(lines))}")


def read(
    data: Dataset, options: LoaderOptions, epoch: int = 0, start: int = 0, augment: bool = True
) -> list[Batch]:
    loader = Loader(data, SPEC, options, AUGMENT if augment else None)
    try:
        return list(loader.epoch(epoch, start))
    finally:
        loader.close()


def same(first: list[Batch], second: list[Batch]) -> bool:
    assert [batch.names for batch in first] == [batch.names for batch in second]
    parts = ("images", "boxes", "labels", "difficult", "crowd")
    return all(
        left.counts == right.counts
        and all(torch.equal(getattr(left, part), getattr(right, part)) for part in parts)
        for left, right in zip(first, second, strict=True)
    )


def by_name(batches: list[Batch]) -> dict[str, torch.Tensor]:
    return dict(chain.from_iterable(zip(b.names, b.images, strict=True) for b in batches))


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_number_of_workers(data: Dataset, workers: int) -> None:
    several = Loader(data, SPEC, replace(OPTIONS, workers=workers), AUGMENT)
    for epoch in (0, 1, 5):
        assert same(read(data, OPTIONS, epoch), list(several.epoch(epoch)))
    several.close()
    several.close()
    assert same(read(data, OPTIONS, 2), list(several.epoch(2)))
    several.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_can_be_resumed_in_the_middle(data: Dataset, workers: int) -> None:
    options = replace(OPTIONS, workers=workers)
    whole = read(data, OPTIONS, 3)
    assert len(whole) == 2
    assert same(read(data, options, 3, start=1), whole[1:])
    assert read(data, options, 3, start=2) == []
    # Also if the same workers were interrupted in the middle of another epoch.
    loader = Loader(data, SPEC, options, AUGMENT)
    next(loader.epoch(1))
    assert same(list(loader.epoch(3, start=1)), whole[1:])
    loader.close()


def test_an_iterator_keeps_its_epoch_when_another_is_requested(data: Dataset) -> None:
    loader = Loader(data, SPEC, OPTIONS, AUGMENT)
    first, second = loader.epoch(0), loader.epoch(1)
    assert same(list(second), read(data, OPTIONS, 1))
    assert same(list(first), read(data, OPTIONS, 0))


def test_a_sample_depends_on_seed_epoch_and_index_only(data: Dataset) -> None:
    single = by_name(read(data, replace(OPTIONS, batch_size=1), 3))
    others = by_name(read(data, replace(OPTIONS, batch_size=11, shuffle=False), 3))
    assert single.keys() == others.keys()
    assert len(single) == COUNT
    assert all(torch.equal(single[name], others[name]) for name in single)
    for changed in (
        read(data, replace(OPTIONS, batch_size=11, seed=8), 3),
        read(data, replace(OPTIONS, batch_size=11), 4),
    ):
        assert not any(torch.equal(single[name], image) for name, image in by_name(changed).items())


def test_order_and_dropped_batches(data: Dataset) -> None:
    def names(options: LoaderOptions, epoch: int = 0) -> list[str]:
        return list(chain.from_iterable(batch.names for batch in read(data, options, epoch)))

    everything = replace(OPTIONS, drop_last=False)
    sorted_names = [f"{k:02}.png" for k in range(COUNT)]
    assert names(replace(everything, shuffle=False)) == sorted_names
    assert sorted(names(everything)) == sorted_names
    assert names(everything) != names(everything, 1)
    assert names(OPTIONS) == names(everything)[:8]
    # A dataset smaller than a batch is not dropped.
    assert sorted(names(replace(OPTIONS, batch_size=64))) == sorted_names


@pytest.mark.parametrize("drop_last", [True, False])
def test_ranks_partition_the_images(data: Dataset, drop_last: bool) -> None:
    ranks = [
        read(data, replace(OPTIONS, batch_size=2, rank=k, world_size=3, drop_last=drop_last), 1)
        for k in range(3)
    ]
    names = [name for batches in ranks for batch in batches for name in batch.names]
    assert set(names) <= {f"{k:02}.png" for k in range(COUNT)}
    assert len(set(names)) == len(names)
    if drop_last:  # as many whole batches of 6 images as in one process
        assert [len(batches) for batches in ranks] == [COUNT // 6] * 3
        assert len(names) == COUNT // 6 * 6
    else:
        assert len(names) == COUNT


@pytest.mark.parametrize("processes", [2, 3])
def test_steps_do_not_depend_on_the_number_of_processes(data: Dataset, processes: int) -> None:
    together = read(data, replace(OPTIONS, batch_size=2 * processes), 1)
    ranks = [
        read(data, replace(OPTIONS, batch_size=2, rank=k, world_size=processes), 1)
        for k in range(processes)
    ]
    assert {len(batches) for batches in ranks} == {len(together)}
    for number, batch in enumerate(together):
        shares = [name for batches in ranks for name in batches[number].names]
        assert sorted(shares) == sorted(batch.names)


@pytest.mark.parametrize("parts", [1, 2, 3, 64])
def test_a_batch_splits_into_its_images(data: Dataset, parts: int) -> None:
    (batch, *_) = read(data, OPTIONS, 0)
    split = batch.split(parts)
    assert len(split) <= parts
    assert [name for part in split for name in part.names] == list(batch.names)
    assert torch.equal(torch.cat([part.images for part in split]), batch.images)
    targets = [target for part in split for target in part.targets]
    for one, other in zip(targets, batch.targets, strict=True):
        assert torch.equal(one.boxes, other.boxes)
        assert torch.equal(one.labels, other.labels)


def test_repeated_images_are_augmented_differently(data: Dataset) -> None:
    twice = open_datasets(data.name, repeat=2)
    batches = read(twice, replace(OPTIONS, batch_size=22, shuffle=False))
    assert batches[0].names[:COUNT] == batches[0].names[COUNT:]
    first, second = batches[0].images[:COUNT], batches[0].images[COUNT:]
    assert not any(torch.equal(left, right) for left, right in zip(first, second, strict=True))


def test_the_contents_of_a_batch(data: Dataset) -> None:
    (batch,) = read(data, LoaderOptions(64, shuffle=False), augment=False)
    assert len(batch) == COUNT
    assert batch.counts == tuple(k % 3 for k in range(COUNT))
    inputs = batch.inputs(SPEC)
    assert (inputs.shape, inputs.dtype) == ((COUNT, 3, 40, 48), torch.float32)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    size = np.array([48, 40, 48, 40], np.float32)
    for k, target in enumerate(batch.targets):
        sample = resize_sample(data[k], SPEC)
        assert torch.equal(batch.images[k], torch.from_numpy(sample.image))
        assert np.allclose(target.boxes.numpy() * size, sample.boxes, atol=1e-4)
        assert target.labels.tolist() == sample.labels.tolist()
        blue, green, red = (sample.image[5, 6].astype(float)).tolist()
        expected = [(red - 123) * 0.5, (green - 117) * 0.25, (blue - 104) * 2]
        assert inputs[k, :, 5, 6].tolist() == pytest.approx(expected)


def test_difficult_and_crowd_boxes_are_ignored(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    head = "image,xmin,ymin,xmax,ymax,class,difficult,iscrowd\n"
    rows = "".join(f"a.png,1,1,9,{9 + k},cat,{k & 1},{k >> 1}\n" for k in range(4))
    data = open_dataset(f"csv:{write_text(tmp_path / 'boxes.csv', head + rows)}")
    (batch,) = read(data, LoaderOptions(1), augment=False)
    assert batch.targets[0].ignored.tolist() == [False, True, True, True]
    assert batch.difficult.tolist() == [False, True, False, True]


@pytest.fixture
def broken(tmp_path: Path) -> Dataset:
    """Four images; after the dataset is opened, one is deleted and one changes its size."""
    rows = []
    for k in range(4):
        write_image(tmp_path / f"{k}.png", seed=k)
        rows.append(f"{k}.png,1,1,9,9,cat")
    data = open_dataset(f"csv:{write_text(tmp_path / 'boxes.csv', chr(10).join(rows))}")
    (tmp_path / "1.png").unlink()
    write_image(tmp_path / "2.png", 80, 60)
    return data


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_images_are_skipped_and_reported_once(broken: Dataset, workers: int) -> None:
    loader = Loader(broken, SPEC, LoaderOptions(4, workers), AUGMENT)
    (batch,) = loader.epoch(0)
    assert sorted(batch.names) == ["0.png", "3.png"]
    assert batch.images.shape[0] == len(batch.targets) == 2
    first, second = sorted(batch.problems, key=lambda problem: problem.file)
    assert (first.file, second.file) == ("1.png", "2.png")
    assert "cannot be read (No such file or directory)" in first.text
    assert "is 80x60 pixels but was 40x30" in second.text
    (batch,) = loader.epoch(1)
    assert sorted(batch.names) == ["0.png", "3.png"]
    assert batch.problems == ()
    loader.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_without_any_readable_image_is_an_error(broken: Dataset, workers: int) -> None:
    loader = Loader(broken, SPEC, LoaderOptions(1, workers, shuffle=False), AUGMENT)
    batches = loader.epoch(0)
    assert next(batches).names == ("0.png",)
    with pytest.raises(
        RealtimeSSDError, match=r"no image of a batch can be read; .*1\.png"
    ) as caught:
        next(batches)
    assert len(str(caught.value).splitlines()) == 1
    loader.close()
