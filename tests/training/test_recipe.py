"""Recipes: those that come with the program, and what is wrong with others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from realtime_ssd_training.cli.train import train as command
from realtime_ssd_training.data import open_dataset
from realtime_ssd_training.engine.distributed import World
from realtime_ssd_training.engine.factory import build_loader
from realtime_ssd_training.engine.run_folder import RunFolder
from realtime_ssd_training.engine.train import Trainer
from realtime_ssd_training.models import create
from realtime_ssd_training.recipe import (
    Recipe,
    as_dict,
    differences,
    from_dict,
    load_recipe,
    recipe_names,
)

from realtime_ssd.core.errors import UsageError
from tests.training.scenes import draw, recipe
from tests.training.tiny_ssd import Listener

VOC, COCO = 16_551, 118_287  # images of VOC 07+12 trainval and of COCO train2017
CAFFE = {
    "voc_ssd300": (VOC, (80_000, 100_000, 120_000)),
    "voc_ssd512": (VOC, (80_000, 100_000, 120_000)),
    "coco_ssd300": (COCO, (280_000, 360_000, 400_000)),
    "coco_ssd512": (COCO, (280_000, 360_000, 400_000)),
}


def test_the_help_names_every_recipe() -> None:
    assert command.__doc__ is not None
    words = command.__doc__.replace(",", " ").replace(".", " ").split()
    assert set(recipe_names()) <= set(words)


@pytest.mark.parametrize("name", CAFFE)
def test_caffe_s_solver(name: str) -> None:
    plan = load_recipe(name)
    images, iterations = CAFFE[name]
    found = [images // plan.run.batch * e for e in (*plan.schedule.milestones, plan.run.epochs)]
    assert found == pytest.approx(iterations, rel=0.005)
    part = plan.optimizer
    assert (part.name, part.lr, part.momentum, part.weight_decay) == ("sgd", 1e-3, 0.9, 5e-4)
    assert (part.bias_lr, part.decay_all, plan.schedule.gamma) == (2.0, False, 0.1)
    assert (plan.run.batch, plan.loss.first, plan.augment) == (32, "bipartite", {})
    assert plan.model.name == name.split("_")[1] + "_vgg16"


def test_torchvision_s_recipes() -> None:
    plan = load_recipe("coco_ssd300_torchvision")
    assert (plan.run.epochs, plan.run.batch, plan.schedule.milestones) == (120, 4 * 8, (80, 110))
    assert (plan.optimizer.lr, plan.optimizer.weight_decay) == (0.002, 5e-4)
    lite = load_recipe("coco_ssdlite320")
    assert (lite.run.epochs, lite.run.batch, lite.schedule.kind) == (660, 24 * 8, "cosine")
    assert (lite.optimizer.lr, lite.optimizer.weight_decay, lite.run.ema) == (0.15, 4e-5, 0.0)
    assert lite.augment == {"photometric": 0.0, "zoom_out": 0.0}
    for one in (plan, lite):
        assert (one.optimizer.momentum, one.optimizer.decay_all) == (0.9, True)
        assert (one.loss.first, one.schedule.warmup, one.schedule.start) == ("forced", 1000, 0.001)


@pytest.mark.parametrize("name", recipe_names())
def test_builds_and_trains_a_step(name: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    data = open_dataset(draw(tmp_path / "pictures", 2))
    plan = load_recipe(name)
    plan = replace(
        plan, run=replace(plan.run, workers=0, batch=1 if "vgg" in plan.model.name else 2)
    )
    model = create(plan.model.name, data.labels, **plan.model.options)
    assert plan.description
    world = World(0, 1, torch.device("cpu"))
    if name in ("voc_ssd512", "coco_ssd300_torchvision"):
        # Other default boxes alone tell their networks from those that train a step here.
        twin = load_recipe("coco_ssd512" if "512" in name else "coco_ssd300")
        other = create(twin.model.name, data.labels, **twin.model.options)
        assert other.default_boxes.shape == model.default_boxes.shape
        build_loader(model, plan, data, world)
        return
    folder = RunFolder(tmp_path / "run", resume=False)
    trainer = Trainer(model, plan, data, None, folder, world, Listener())
    before = {key: value.clone() for key, value in model.named_parameters()}
    (loss, *_), stop = trainer._step(next(trainer.loader.epoch(0)), 0)
    assert 0 < loss < float("inf")
    assert stop == 0
    moved = [not torch.equal(value, before[key]) for key, value in model.named_parameters()]
    assert sum(moved) > len(moved) // 2


def test_back_and_forth_through_json() -> None:
    for name in recipe_names():
        plan = load_recipe(name)
        assert from_dict(json.loads(json.dumps(as_dict(plan)))) == plan
        assert differences(plan, from_dict(json.loads(json.dumps(as_dict(plan))))) == []


def test_what_has_to_stay_when_a_run_goes_on() -> None:
    plan = load_recipe("demo")
    longer = replace(plan, run=replace(plan.run, epochs=99, workers=0), description="x")
    assert differences(plan, longer) == []
    other = replace(
        plan,
        run=replace(plan.run, batch=3, seed=1),
        optimizer=replace(plan.optimizer, lr=1.0),
        augment={**plan.augment, "flip": 0.0},
    )
    assert differences(plan, other) == ["augment.flip", "optimizer.lr", "run.batch", "run.seed"]


@pytest.mark.parametrize(
    ("part", "key", "value", "text"),
    [
        ("run", "epochs", 0, "'recipe: run: epochs' is 0; it must be at least 1"),
        ("run", "epochs", 1.5, "it must be a whole number"),
        ("run", "epochs", True, "it must be a whole number"),
        ("run", "batch", -4, "it must be at least 1"),
        ("run", "workers", -1, "it must be at least 0"),
        ("run", "ema", 1.0, "it must be at least 0 and at most 0.999999"),
        ("run", "amp", "fp8", "it must be 'none' or 'bf16' or 'fp16'"),
        ("run", "metric", 3, "it must be 'voc' or 'voc07' or 'coco'"),
        ("run", "compile", 1, "it must be true or false"),
        ("run", "epoch", 3, "has no entry 'epoch'; it has amp, batch"),
        ("optimizer", "lr", 0, "it must be above 0"),
        ("optimizer", "lr", float("nan"), "it must be above 0"),
        ("optimizer", "lr", float("inf"), "it must be above 0"),
        ("optimizer", "lr", "fast", "it must be a number"),
        ("optimizer", "name", "lion", "it must be 'sgd' or 'adamw'"),
        ("schedule", "milestones", 5, "it must be a list"),
        ("schedule", "milestones", [0], "it must be at least 1"),
        ("schedule", "milestones", ["a"], "it must be a whole number"),
        ("data", "train", 5, "it must be a text"),
        ("loss", "iou_threshold", 1.5, "it must be at least 0 and at most 1"),
        ("model", "options", "wide", "it must be a table"),
    ],
)
def test_values_that_do_not_fit(part: str, key: str, value: Any, text: str) -> None:
    data: dict[str, Any] = {"name": "x", "model": {"name": "demo"}}
    data[part] = {**data.get(part, {}), key: value}
    with pytest.raises(UsageError) as caught:
        from_dict(data)
    assert text in str(caught.value)


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="there is no recipe 'missing'; give a TOML file or one of bccd"
    ):
        load_recipe("missing")
    with pytest.raises(UsageError, match="there is no recipe"):
        load_recipe(str(tmp_path / "missing.toml"))
    with pytest.raises(UsageError, match="is no TOML file"):
        load_recipe(str(recipe(tmp_path, "[model\nname = 3")))
    with pytest.raises(UsageError, match=r"every recipe needs model\.name"):
        load_recipe(str(recipe(tmp_path, "[run]\nepochs = 3")))
    with pytest.raises(UsageError, match="it must be a table"):
        load_recipe(str(recipe(tmp_path, 'model = "demo"')))
    (tmp_path / "latin.toml").write_bytes(b'description = "\xe9"')
    with pytest.raises(UsageError, match="is no TOML file"):
        load_recipe(str(tmp_path / "latin.toml"))


def test_the_name_is_that_of_the_file(tmp_path: Path) -> None:
    path = recipe(tmp_path, '[model]\nname = "ssd300_vgg16"', name="mine")
    plan = load_recipe(str(path))
    assert isinstance(plan, Recipe)
    assert (plan.name, plan.run.epochs) == ("mine", 1)
