"""The bundled recipes, and the validation of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from realtime_ssd_training.cli.train import train as command
from realtime_ssd_training.data import open_dataset
from realtime_ssd_training.engine.run_folder import RunFolder
from realtime_ssd_training.engine.trainer import Trainer
from realtime_ssd_training.engine.training_components import build_loader
from realtime_ssd_training.models import create
from realtime_ssd_training.recipe import (
    FOLDER,
    Recipe,
    differences,
    from_dict,
    load_recipe,
    recipe_names,
    to_dict,
    with_overrides,
)

from realtime_ssd.core.errors import UsageError
from tests.training.scenes import draw, recipe
from tests.training.tiny_ssd import SINGLE_PROCESS, RecordingReporter

VOC, COCO = 16_551, 118_287  # images of VOC 07+12 trainval and of COCO train2017
CAFFE = {
    "voc_ssd300": (VOC, (80_000, 100_000, 120_000)),
    "voc_ssd512": (VOC, (80_000, 100_000, 120_000)),
    "coco_ssd300": (COCO, (280_000, 360_000, 400_000)),
    "coco_ssd512": (COCO, (280_000, 360_000, 400_000)),
}


def test_the_help_lists_every_recipe() -> None:
    assert command.__doc__ is not None
    help_words = command.__doc__.replace(",", " ").replace(".", " ").split()
    assert set(recipe_names()) <= set(help_words)


@pytest.mark.parametrize("name", CAFFE)
def test_caffe_recipes_use_the_solver_of_the_caffe_release(name: str) -> None:
    loaded = load_recipe(name)
    images, iterations = CAFFE[name]
    epochs = (*loaded.schedule.milestones, loaded.run.epochs)
    steps = [images // loaded.run.batch * epoch for epoch in epochs]
    assert steps == pytest.approx(iterations, rel=0.005)
    config = loaded.optimizer
    assert (config.name, config.lr, config.momentum, config.weight_decay) == (
        "sgd",
        1e-3,
        0.9,
        5e-4,
    )
    assert (config.bias_lr, config.decay_all, loaded.schedule.gamma) == (2.0, False, 0.1)
    assert (loaded.run.batch, loaded.loss.first, loaded.augment) == (32, "bipartite", {})
    assert loaded.model.name == name.split("_")[1] + "_vgg16"


def test_torchvision_recipes_use_the_settings_of_its_reference_training() -> None:
    full = load_recipe("coco_ssd300_torchvision")
    assert (full.run.epochs, full.run.batch, full.schedule.milestones) == (120, 4 * 8, (80, 110))
    assert (full.optimizer.lr, full.optimizer.weight_decay) == (0.002, 5e-4)
    lite = load_recipe("coco_ssdlite320")
    assert (lite.run.epochs, lite.run.batch, lite.schedule.kind) == (660, 24 * 8, "cosine")
    assert (lite.optimizer.lr, lite.optimizer.weight_decay, lite.run.ema) == (0.15, 4e-5, 0.0)
    assert lite.augment == {"photometric": 0.0, "zoom_out": 0.0}
    for loaded in (full, lite):
        assert (loaded.optimizer.momentum, loaded.optimizer.decay_all) == (0.9, True)
        schedule = loaded.schedule
        assert (loaded.loss.first, schedule.warmup, schedule.start) == ("forced", 1000, 0.001)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_builds_a_network_and_trains_a_step(name: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    data = open_dataset(draw(tmp_path / "images", 2))
    loaded = load_recipe(name)
    batch = 1 if "vgg" in loaded.model.name else 2
    loaded = with_overrides(loaded, {"run.workers": 0, "run.batch": batch})
    model = create(loaded.model.name, data.labels, **loaded.model.options)
    assert loaded.description
    if name in ("voc_ssd512", "coco_ssd300_torchvision"):
        # The network differs only in its default boxes from one that trains a step here.
        similar = load_recipe("coco_ssd512" if "512" in name else "coco_ssd300")
        other = create(similar.model.name, data.labels, **similar.model.options)
        assert other.default_boxes.shape == model.default_boxes.shape
        build_loader(model, loaded, data, SINGLE_PROCESS)
        return
    folder = RunFolder(tmp_path / "run", resume=False)
    trainer = Trainer(model, loaded, data, None, folder, SINGLE_PROCESS, RecordingReporter())
    before = {key: value.clone() for key, value in model.named_parameters()}
    result = trainer.step.run(next(trainer.loader.epoch(0)), 0, trainer.learning_rate(0), 0)
    loss, stopped_by = result.loss, int(result.stop_requested)
    assert 0 < loss < float("inf")
    assert stopped_by == 0
    moved = [not torch.equal(value, before[key]) for key, value in model.named_parameters()]
    assert sum(moved) > len(moved) // 2


def test_a_recipe_survives_a_round_trip_through_json() -> None:
    for name in recipe_names():
        original = load_recipe(name)
        copy = from_dict(json.loads(json.dumps(to_dict(original))))
        assert copy == original
        assert differences(original, copy) == []


def test_differences_lists_only_keys_that_must_not_change_on_resume() -> None:
    demo = load_recipe("demo")
    longer = replace(demo, run=replace(demo.run, epochs=99, workers=0), description="x")
    assert differences(demo, longer) == []
    other = replace(
        demo,
        run=replace(demo.run, batch=3, seed=1),
        optimizer=replace(demo.optimizer, lr=1.0),
        augment={**demo.augment, "flip": 0.0},
    )
    assert differences(demo, other) == ["augment.flip", "optimizer.lr", "run.batch", "run.seed"]


def test_differences_ignores_whether_a_sequence_is_a_list_or_a_tuple() -> None:
    model = {"name": "x", "options": {"scales": (0.1, 0.2)}}
    read_from_json = {"name": "x", "options": {"scales": [0.1, 0.2]}}
    recipes = [from_dict({"name": "x", "model": table}) for table in (model, read_from_json)]
    assert differences(*recipes) == []


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("name", {"name": "y"}),
        ("description", {"description": "y"}),
        ("model.backbone", {"model": {"name": "x", "backbone": "y"}}),
        ("data.train", {"data": {"train": "y"}}),
        ("data.val", {"data": {"val": "y"}}),
        ("run.epochs", {"run": {"epochs": 2}}),
        ("run.workers", {"run": {"workers": 0}}),
        ("run.compile", {"run": {"compile": True}}),
        ("run.channels_last", {"run": {"channels_last": False}}),
        ("run.evaluate_every", {"run": {"evaluate_every": 2}}),
        ("run.metric", {"run": {"metric": "coco"}}),
    ],
)
def test_keys_that_do_not_affect_a_step_may_change_on_resume(
    key: str, changes: dict[str, Any]
) -> None:
    first, second = (
        from_dict({"name": "x", "model": {"name": "x"}, **table}) for table in ({}, changes)
    )
    assert first != second, key
    assert differences(first, second) == []


@pytest.mark.parametrize(
    ("part", "key", "value", "text"),
    [
        ("run", "epochs", 0, "must be an integer of at least 1, not 0"),
        ("run", "epochs", 1.5, "must be an integer of at least 1, not 1.5"),
        ("run", "epochs", True, "must be an integer of at least 1, not True"),
        ("run", "batch", -4, "must be an integer of at least 1, not -4"),
        ("run", "workers", -1, "must be an integer of at least 0 or 'auto', not -1"),
        ("run", "ema", 1.0, "must be a finite number of at least 0 and at most 0.999999, not 1.0"),
        ("run", "amp", "fp8", "must be one of 'auto', 'bf16', 'fp16', 'none', not 'fp8'"),
        ("run", "metric", 3, "must be one of 'coco', 'voc', 'voc07', not 3"),
        ("run", "compile", 1, "must be true or false, not 1"),
        ("optimizer", "lr", 0, "must be a finite number above 0, not 0"),
        ("optimizer", "lr", float("nan"), "must be a finite number above 0, not nan"),
        ("optimizer", "lr", float("inf"), "must be a finite number above 0, not inf"),
        ("optimizer", "lr", "fast", "must be a finite number above 0, not 'fast'"),
        ("optimizer", "clip", float("inf"), "must be a finite number of at least 0, not inf"),
        ("optimizer", "name", "lion", "must be one of 'adamw', 'sgd', not 'lion'"),
        ("schedule", "milestones", 5, "must be an array in which each item is an integer"),
        (
            "schedule",
            "milestones",
            [0],
            "must be an array in which each item is an integer of at least 1, not [0]",
        ),
        (
            "schedule",
            "milestones",
            ["a"],
            "must be an array in which each item is an integer of at least 1, not ['a']",
        ),
        ("data", "train", 5, "must be a string, not 5"),
        ("data", "remap", {"van": 3}, "must be a table of strings, not {'van': 3}"),
        ("loss", "iou_threshold", 1.5, "must be a finite number of at least 0 and at most 1, not"),
        ("model", "options", "wide", "must be a table, not 'wide'"),
    ],
)
def test_an_invalid_value_is_named_with_its_key_and_what_is_allowed(
    part: str, key: str, value: Any, text: str
) -> None:
    data: dict[str, Any] = {"name": "x", "model": {"name": "demo"}}
    data[part] = {**data.get(part, {}), key: value}
    with pytest.raises(UsageError) as caught:
        from_dict(data, "a.toml")
    assert str(caught.value).startswith(f"'{part}.{key}' in 'a.toml' {text}")


def test_an_unknown_key_is_named_with_the_closest_known_one(tmp_path: Path) -> None:
    path = recipe(tmp_path, '[model]\nname = "x"\n[run]\nepoch = 3')
    with pytest.raises(UsageError) as caught:
        load_recipe(str(path))
    assert str(caught.value) == (
        f"'run.epoch' in '{path}' is not a known key (did you mean 'run.epochs'?); the keys are "
        "accumulate, amp, batch, channels_last, compile, ema, epochs, evaluate_every, metric, "
        "patience, seed, sync_batch_norm, workers"
    )
    path = recipe(tmp_path, 'zzz = 1\n[model]\nname = "x"')
    with pytest.raises(UsageError, match=r"'zzz' in .* is not a known key; the keys are augment"):
        load_recipe(str(path))


def test_invalid_files_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="recipe 'missing' does not exist; use a TOML file or one of bccd"
    ):
        load_recipe("missing")
    with pytest.raises(UsageError, match=r"recipe '.*missing\.toml' does not exist"):
        load_recipe(str(tmp_path / "missing.toml"))
    with pytest.raises(UsageError, match="is not a valid TOML file"):
        load_recipe(str(recipe(tmp_path, "[model\nname = 3")))
    with pytest.raises(UsageError, match=r"every recipe needs 'name' and 'model\.name'"):
        load_recipe(str(recipe(tmp_path, "[run]\nepochs = 3")))
    with pytest.raises(UsageError, match=r"'model\.name' is missing in '.*tiny\.toml'"):
        load_recipe(str(recipe(tmp_path, "[model]")))
    with pytest.raises(UsageError, match=r"'model' in '.*tiny\.toml' must be a table, not 'demo'"):
        load_recipe(str(recipe(tmp_path, 'model = "demo"')))
    (tmp_path / "latin.toml").write_bytes(b'description = "\xe9"')
    with pytest.raises(UsageError, match="is not a valid TOML file"):
        load_recipe(str(tmp_path / "latin.toml"))


def test_the_default_name_is_that_of_the_file(tmp_path: Path) -> None:
    path = recipe(tmp_path, '[model]\nname = "ssd300_vgg16"', name="own")
    loaded = load_recipe(str(path))
    assert isinstance(loaded, Recipe)
    assert (loaded.name, loaded.run.epochs) == ("own", 1)


def test_the_bundled_recipes_are_the_files_of_the_folder() -> None:
    assert {f"{name}.toml" for name in recipe_names()} == {path.name for path in FOLDER.iterdir()}
    assert recipe_names() == tuple(sorted(recipe_names()))


def test_overrides_replace_values_by_dotted_key() -> None:
    demo = load_recipe("demo")
    changed = with_overrides(demo, {"run.epochs": 3, "optimizer.lr": None, "name": "new"})
    assert changed == replace(demo, name="new", run=replace(demo.run, epochs=3))
    assert demo.run.epochs == 11


def test_invalid_overrides_are_named_as_parameters() -> None:
    demo = load_recipe("demo")
    with pytest.raises(UsageError, match=r"^`epochs` must be an integer of at least 1, not 0$"):
        with_overrides(demo, {"run.epochs": 0})
    with pytest.raises(UsageError, match=r"^'run\.epoch' is not a known key \(did you mean 'run"):
        with_overrides(demo, {"run.epoch": 1})
    with pytest.raises(UsageError, match=r"^'rum' is not a known key \(did you mean 'run'\?\)"):
        with_overrides(demo, {"rum.epochs": 1})
