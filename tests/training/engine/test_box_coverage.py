"""How many default boxes reach objects, against the matching that training uses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from realtime_ssd_training.data import open_dataset
from realtime_ssd_training.data.statistics import collect_statistics
from realtime_ssd_training.engine.box_coverage import (
    ACCEPTED,
    SIDES,
    count_default_boxes,
    coverage_of,
    propose_recipe,
    sample_objects,
)
from realtime_ssd_training.engine.matching import match
from realtime_ssd_training.models import create
from realtime_ssd_training.recipe import load_recipe


def random_boxes(count: int, low: float = 0.01, high: float = 0.9) -> np.ndarray:
    random = np.random.default_rng(3)
    sides = np.exp(random.uniform(np.log(low), np.log(high), (count, 2)))
    corners = random.uniform(0, 1, (count, 2)) * (1 - sides)
    return np.concatenate([corners, corners + sides], axis=1)


def test_counts_equal_those_of_matching() -> None:
    default_boxes = create("ssdlite320_mobilenet_v3_large", ["background", "cat"]).default_boxes
    boxes = random_boxes(60)
    counts = count_default_boxes(boxes, default_boxes.numpy(), 0.5)
    for box, count in zip(boxes, counts, strict=True):
        single = torch.from_numpy(box[None]).float()
        matches = match(default_boxes, single, torch.tensor([1]), 0.5)
        assert int(matches.matched.sum()) == count
    assert len(set(counts.tolist())) > 5


def test_published_shares_of_real_data(shared_data: Path) -> None:
    """Objects of COCO with at most one default box: 61 % with SSDLite, 35 % with `custom`."""
    folder = shared_data / "coco_mini"
    data = open_dataset(f"coco:{folder / 'instances.json'}:{folder / 'JPEGImages'}")
    boxes = collect_statistics(data).boxes
    for name, share in (("coco_ssdlite320", 0.61), ("custom", 0.35)):
        coverage = coverage_of(load_recipe(name), name, boxes)
        assert coverage.single_fraction == pytest.approx(share, abs=0.005)
        assert sum(coverage.objects) == 611
        assert len(coverage.objects) == len(SIDES) - 1
        assert coverage.mean[-1] > coverage.mean[0]


def test_the_recipe_fits_the_objects() -> None:
    large = propose_recipe(random_boxes(50, 0.3, 0.6), 1.0)
    assert (large.changed, large.sufficient) == (False, True)
    small = propose_recipe(random_boxes(50, 0.025, 0.04), 16 / 9)
    assert small.changed
    assert int(str(small.options["columns"])) > int(str(small.options["rows"])) >= 256
    assert small.sufficient == (small.coverage.single_fraction <= ACCEPTED)
    upright = propose_recipe(random_boxes(50, 0.025, 0.04), 9 / 16)
    assert int(str(upright.options["rows"])) > int(str(upright.options["columns"]))
    tiny = propose_recipe(random_boxes(50, 0.004, 0.006), 1.0)
    assert not tiny.sufficient


def test_large_datasets_are_sampled_evenly() -> None:
    boxes = random_boxes(10001)
    sampled = sample_objects(boxes)
    assert 3000 <= len(sampled) <= 4000
    assert np.isin(sampled[-1], boxes[-5:]).all()
    assert len(sample_objects(boxes[:7])) == 7
