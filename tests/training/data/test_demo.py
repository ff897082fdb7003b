"""The synthetic street as a dataset equals its scenes, from the cache and without it."""

from __future__ import annotations

import pickle
from functools import lru_cache

import numpy as np
import pytest
from realtime_ssd_training.data import Dataset, demo, open_dataset

from realtime_ssd.core.errors import UsageError
from realtime_ssd.synthetic import LABELS, StreetScene

WIDTH, HEIGHT = 64, 48


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Two scenes of 64 x 48 pixels."""
    return open_dataset(f"demo:7-8:{WIDTH}x{HEIGHT}")


@lru_cache
def scene(seed: int) -> StreetScene:
    return StreetScene(WIDTH, HEIGHT, seed=seed)


def assert_equals_scene(data: Dataset, index: int) -> int:
    """Compare an image with its scene and return the number of its objects."""
    seed, position = 7 + index // 8, index % 8
    image, truth = scene(seed).frame(53 * position)
    sample, annotation = data[index], data.annotation(index)
    assert annotation.name == sample.name == f"street-{seed}-{position}"
    assert (annotation.width, annotation.height) == (WIDTH, HEIGHT)
    assert np.array_equal(sample.image, image)
    for actual in (sample, annotation):
        assert [data.labels[label] for label in actual.labels] == [item.label for item in truth]
        assert actual.difficult.tolist() == [item.difficult for item in truth]
        assert not actual.crowd.any()
        assert len(actual.crowd) == len(truth)
        boxes = np.array([item.box for item in truth], np.float32).reshape(-1, 4)
        assert np.array_equal(actual.boxes, boxes)
    sides = annotation.boxes[:, 2:] - annotation.boxes[:, :2]
    assert annotation.areas.tolist() == sides.prod(axis=1).tolist()
    return len(truth)


def test_labels_size_and_ids(data: Dataset) -> None:
    assert data.labels == ("background", *LABELS)
    assert [data.image_id(index) for index in range(len(data))] == list(range(1, 17))
    assert open_dataset("demo:3").annotation(-1).name == "street-3-7"
    default = open_dataset("demo")
    assert len(default) == 800
    assert (default.annotation(0).width, default.annotation(0).height) == (480, 270)


def test_images_in_any_order_equal_their_scenes(data: Dataset) -> None:
    assert sum(assert_equals_scene(data, index) for index in (9, 2, 15, 0, 9, 8)) > 6


def test_indices_out_of_range(data: Dataset) -> None:
    for read in (data.annotation, data.__getitem__, data.image_id):
        with pytest.raises(IndexError):
            read(16)
    assert len(list(data)) == 16


def test_a_copy_in_a_worker_process_reads_the_same(data: Dataset) -> None:
    copy = pickle.loads(pickle.dumps(data))  # noqa: S301 - written by this test
    assert_equals_scene(copy, 11)
    assert len(pickle.dumps(data)) < 5000


def test_an_image_is_a_writable_copy(data: Dataset) -> None:
    sample = data[1]
    sample.image[:] = 0
    sample.boxes[:] = 0
    assert_equals_scene(data, 1)


def test_a_scene_is_rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[int] = []
    frame = StreetScene.frame

    def count(scene: StreetScene, number: int) -> object:
        rendered.append(number)
        return frame(scene, number)

    monkeypatch.setattr(StreetScene, "frame", count)
    data = open_dataset(f"demo:7-8:{WIDTH}x{HEIGHT}")
    for index in (3, 4, 3, 0):
        data.annotation(index)
    assert rendered == [53 * position for position in range(8)]


def test_datasets_too_large_for_the_cache_are_rendered_on_access(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(demo, "_MAX_CACHE_BYTES", 16 * WIDTH * HEIGHT * 3)
    data = open_dataset(f"demo:7-8:{WIDTH}x{HEIGHT}")
    assert sum(assert_equals_scene(data, index) for index in (9, 2, 9)) > 2


def test_classes_may_be_remapped_and_selected(data: Dataset) -> None:
    subset = open_dataset(
        f"demo:7-8:{WIDTH}x{HEIGHT}", remap={"truck": "car", "bus": "car"}, classes=["car"]
    )
    assert subset.labels == ("background", "car")
    names = [[data.labels[k] for k in data.annotation(index).labels] for index in range(16)]
    expected = [sum(name in ("car", "truck", "bus") for name in image) for image in names]
    assert [len(subset.annotation(index).labels) for index in range(16)] == expected
    assert 0 < sum(expected) < sum(map(len, names))


@pytest.mark.parametrize("text", ["demo:9-8", "demo:0-1:15x16", "demo:0-1:16x15"])
def test_empty_specifications(text: str) -> None:
    with pytest.raises(UsageError, match=f"'{text}' contains no images; write demo:FIRST-LAST"):
        open_dataset(text)


def test_one_number_is_the_size_of_a_square() -> None:
    assert open_dataset("demo:1:64")[0].image.shape == (64, 64, 3)


@pytest.mark.parametrize("text", ["demo:a", "demo:1-b", "demo:1-2:64*48"])
def test_invalid_specifications(text: str) -> None:
    with pytest.raises(UsageError, match="does not match demo"):
        open_dataset(text)
