"""The training loop: steps, metrics, checkpoints, and diverging runs."""

from __future__ import annotations

import csv
import math
import os
import signal
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from realtime_ssd_training.data import Sample, Subset
from realtime_ssd_training.data.sample import Annotation
from realtime_ssd_training.engine.loader import Loader
from realtime_ssd_training.engine.loss import MultiBoxLoss
from realtime_ssd_training.engine.run_folder import RunFolder
from realtime_ssd_training.engine.trainer import Trainer
from realtime_ssd_training.engine.validation import score_model
from realtime_ssd_training.models import create
from realtime_ssd_training.models.checkpoint import read_checkpoint
from realtime_ssd_training.models.ssd import SSD
from torch import nn

from realtime_ssd.cli import main
from realtime_ssd.core.errors import RealtimeSSDError
from tests.training.scenes import draw, recipe
from tests.training.tiny_ssd import (
    SINGLE_PROCESS,
    RecordingReporter,
    Squares,
    tiny_recipe,
    tiny_ssd,
    train,
)


class Pairs(Squares):
    """Squares with two overlapping objects, of which the second is difficult."""

    def annotation(self, index: int) -> Annotation:
        truth = super().annotation(index)
        boxes = np.concatenate([truth.boxes, truth.boxes + 1])
        difficult, crowd = np.array([False, True]), np.zeros(2, np.bool_)
        return replace(
            truth,
            boxes=boxes,
            labels=np.array([1, 1]),
            difficult=difficult,
            crowd=crowd,
            areas=np.array([196, 196], np.float32),
        )


def plain_sgd(
    model: SSD, loss: MultiBoxLoss, loader: Loader, *, clip: float = 0.0, ema: float = 0.0
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Train one epoch with SGD in a plain loop; return losses and moving averages.

    Difficult objects are used like others.
    """
    velocities = [torch.zeros_like(value) for value in model.parameters()]
    losses: list[float] = []
    averages = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    for number, batch in enumerate(loader.epoch(0), start=1):
        model.zero_grad()
        targets = [replace(t, ignored=torch.zeros_like(t.ignored)) for t in batch.targets]
        value = loss(*model(batch.inputs(model.spec.input)), targets)
        value.backward()
        losses.append(value.item())
        gradients = [value.grad for value in model.parameters() if value.grad is not None]
        norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients))
        factor = min(1.0, clip / (norm + 1e-6)) if clip else 1.0
        with torch.no_grad():
            for parameter, gradient, velocity in zip(
                model.parameters(), gradients, velocities, strict=True
            ):
                velocity.mul_(0.9).add_(gradient * factor + 5e-4 * parameter)
                parameter.sub_(0.05 * velocity)
        decay = min(ema, (1 + number) / (10 + number))
        for name, value in model.state_dict().items():
            averages[name] = decay * averages[name] + (1 - decay) * value
    return losses, averages


def assert_equals_plain_sgd(folder: Path, loss: dict[str, Any], **overrides: Any) -> None:
    """Train an epoch with given loss parameters, and compare weights and losses."""
    overrides |= {f"loss__{key}": value for key, value in loss.items()}
    reporter = RecordingReporter()
    plan = tiny_recipe(**{"run__epochs": 1, "run__ema": 0.0, **overrides})
    trainer, result = train(folder, plan, model=tiny_ssd(), reporter=reporter, data=Pairs())
    plain = tiny_ssd()
    plain_loss = MultiBoxLoss(plain.spec, plain.default_boxes, **loss)
    clip, ema = plan.optimizer.clip, plan.run.ema
    losses, averages = plain_sgd(plain, plain_loss, trainer.loader, clip=clip, ema=ema)
    assert (result.epochs, trainer.progress.step) == (1, 3)
    assert reporter.losses == pytest.approx(losses, rel=1e-4)
    for name, value in plain.state_dict().items():
        trained = trainer.model.state_dict()[name]
        torch.testing.assert_close(trained, value, rtol=1e-4, atol=1e-6, msg=name)
        if trainer.ema and value.is_floating_point():
            average = trainer.ema.tensors[name]
            torch.testing.assert_close(average, averages[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("clip", [0.0, 0.5])
@pytest.mark.parametrize("channels_last", [True, False])
def test_an_epoch_equals_plain_sgd(tmp_path: Path, clip: float, channels_last: bool) -> None:
    assert_equals_plain_sgd(tmp_path, {}, run__channels_last=channels_last, optimizer__clip=clip)


@pytest.mark.parametrize(
    "loss",
    [
        {"alpha": 0.25},
        {"alpha": 4.0},
        {"negatives": 1.0},
        {"iou_threshold": 0.25},
        {"first": "forced", "iou_threshold": 0.9},
    ],
    ids=str,
)
def test_every_loss_parameter_takes_effect_in_a_step(tmp_path: Path, loss: dict[str, Any]) -> None:
    assert_equals_plain_sgd(tmp_path, loss)


def test_difficult_objects_can_be_ignored(tmp_path: Path) -> None:
    losses = {}
    for difficult in ("use", "ignore"):
        for data in (Squares(), Pairs()):
            reporter = RecordingReporter()
            plan = tiny_recipe(run__epochs=1, data__difficult=difficult)
            folder = tmp_path / f"{difficult}-{type(data).__name__}"
            train(folder, plan, model=tiny_ssd(), reporter=reporter, data=data)
            losses[difficult, type(data)] = reporter.losses
    assert losses["use", Squares] == losses["ignore", Squares]
    assert losses["use", Pairs] != losses["ignore", Pairs]


@pytest.mark.parametrize("ema", [0.05, 0.15, 0.99])
def test_the_moving_average_has_the_decay_of_the_recipe(tmp_path: Path, ema: float) -> None:
    assert_equals_plain_sgd(tmp_path, {}, run__ema=ema)


def test_memory_format_and_precision_are_those_of_the_recipe(tmp_path: Path) -> None:
    seen: list[tuple[bool, torch.dtype]] = []

    def record(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        last = inputs[0].is_contiguous(memory_format=torch.channels_last)
        seen.append((last, output.dtype))

    for number, (last, amp, dtype) in enumerate(
        (
            (True, "none", torch.float32),
            (False, "none", torch.float32),
            (True, "bf16", torch.bfloat16),
            (True, "fp16", torch.float16),
        )
    ):
        model = tiny_ssd()
        model.backbone.get_submodule("layers.0").register_forward_hook(record)
        plan = tiny_recipe(run__epochs=1, run__channels_last=last, run__amp=amp)
        trainer, _ = train(tmp_path / str(number), plan, model=model)
        assert seen[0] == (last, dtype)
        weight = model.get_parameter("backbone.layers.0.weight")
        assert weight.dtype == torch.float32
        assert weight.is_contiguous(memory_format=torch.channels_last) == last
        assert trainer.step.scaler.is_enabled() == (amp == "fp16")
        seen.clear()


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_trains_like_single_precision(tmp_path: Path, amp: str) -> None:
    losses = {}
    for precision in ("none", amp):
        reporter = RecordingReporter()
        plan = tiny_recipe(run__epochs=2, run__amp=precision, optimizer__lr=0.002)
        train(tmp_path / precision, plan, model=tiny_ssd(), reporter=reporter)
        losses[precision] = reporter.losses
    assert losses[amp] == pytest.approx(losses["none"], rel=0.04)  # fp16 skips its first step
    assert losses[amp] != losses["none"]


def test_fp16_clips_the_gradient_without_the_loss_scale(tmp_path: Path) -> None:
    losses = {}
    for precision in ("none", "fp16"):
        reporter = RecordingReporter()
        plan = tiny_recipe(
            run__epochs=6, run__amp=precision, optimizer__lr=0.02, optimizer__clip=1.0
        )
        train(tmp_path / precision, plan, model=tiny_ssd(), reporter=reporter)
        losses[precision] = reporter.losses
    assert losses["none"][-1] < 0.9 * losses["none"][0]
    assert losses["fp16"] == pytest.approx(losses["none"], rel=0.08)


def test_fp16_resumes_with_the_saved_loss_scale(tmp_path: Path) -> None:
    plan = tiny_recipe(run__epochs=2, run__amp="fp16")
    uninterrupted, _ = train(tmp_path / "a", plan)
    train(tmp_path / "b", plan, reporter=RecordingReporter((0, 1)))
    resumed, _ = train(tmp_path / "b", plan, resume=True)
    assert uninterrupted.step.scaler.state_dict() == resumed.step.scaler.state_dict()
    for name, value in uninterrupted.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name])


def test_batches_are_not_pinned_without_a_gpu(tmp_path: Path) -> None:
    trainer, _ = train(tmp_path, tiny_recipe(run__epochs=1))
    assert not trainer.loader.options.pin_memory


def test_a_frozen_backbone_does_not_change_but_its_extra_layers_do(tmp_path: Path) -> None:
    labels = ("background", "bright")
    model = create("ssd_mobilenet_v1_fpn", labels, width=0.125, columns=128, rows=128)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train(tmp_path, tiny_recipe(model__freeze="backbone", run__epochs=1), model=model)
    changed = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    parts = {".".join(name.split(".")[:2]) for name in changed if name.startswith("backbone")}
    assert parts == {"backbone.extras", "backbone.laterals", "backbone.smooth"}
    assert any(name.startswith("score_heads") for name in changed)


def test_frozen_batch_normalization_does_not_change(tmp_path: Path) -> None:
    model = tiny_ssd()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train(tmp_path, tiny_recipe(model__norm="frozen", run__epochs=1), model=model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == (".layers.1." in name), name


def test_the_moving_average_is_evaluated_and_kept(tmp_path: Path) -> None:
    trainer, _ = train(tmp_path, tiny_recipe(run__epochs=2), val=Squares(4))
    assert trainer.ema is not None
    best = read_checkpoint(tmp_path / "best.safetensors").weights
    for name, value in trainer.ema.tensors.items():
        assert torch.equal(value, best[name])
    assert any(not torch.equal(v, best[k]) for k, v in trainer.model.state_dict().items())


def test_learning_rates_and_metrics(tmp_path: Path) -> None:
    reporter = RecordingReporter()
    plan = tiny_recipe(schedule__milestones=[1, 2], schedule__warmup=2, schedule__start=0.5)
    trainer, _ = train(tmp_path, plan, reporter=reporter, val=Squares(4))
    assert reporter.rates == pytest.approx([0.025, 0.0375, 0.05] + [0.005] * 3 + [0.0005] * 3)
    assert [row.epoch for row in reporter.epochs] == [1, 2, 3]
    assert [row.step for row in reporter.epochs] == [3, 6, 9]
    for number, row in enumerate(reporter.epochs):
        losses = reporter.losses[3 * number : 3 * number + 3]
        assert row.loss == pytest.approx(sum(losses) / 3)
        assert row.loss == pytest.approx(row.score_loss + row.offset_loss)
        assert row.lr == reporter.rates[3 * number + 2]
        assert row.images_per_second > 0
    with (tmp_path / "metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [{k: None if v == "" else float(v) for k, v in line.items()} for line in table] == [
        row.values() for row in trainer.history
    ]
    curves = cv2.imread(str(tmp_path / "curves.png"))
    assert curves is not None
    assert np.std(curves) > 5


def test_evaluation_every_few_epochs_and_at_the_end(tmp_path: Path) -> None:
    trainer, _ = train(tmp_path, tiny_recipe(run__epochs=5, run__evaluate_every=2), val=Squares(4))
    assert [row.score is not None for row in trainer.history] == [False, True, False, True, True]


class PartlyUnreadable(Squares):
    """Squares of which some cannot be read."""

    def __init__(self, count: int, unreadable: Collection[int]) -> None:
        super().__init__(count)
        self.unreadable = unreadable

    def __getitem__(self, index: int) -> Sample:
        if index in self.unreadable:
            raise RealtimeSSDError(f"image '{index}' cannot be decoded; replace or remove it")
        return super().__getitem__(index)


@pytest.mark.parametrize("unreadable", [{0}, {1, 16}, {16}])
def test_unreadable_images_are_excluded_from_the_score(
    tmp_path: Path, unreadable: set[int]
) -> None:
    # A batch has 16 images; the unreadable ones shift the others or are a batch of their own.
    reporter = RecordingReporter()
    plan, whole = tiny_recipe(run__epochs=2), Squares(17)
    trainer, _ = train(tmp_path, plan, reporter=reporter, val=PartlyUnreadable(17, unreadable))
    readable = [k for k in range(17) if k not in unreadable]
    expected = score_model(trainer._averaged_model(), Subset(whole, readable), "voc").mean
    assert 0 < expected == trainer.history[-1].score
    files = [problem.file for problem in reporter.problems]
    assert files == [f"square{k}" for k in sorted(unreadable)]


def test_a_killed_worker_is_reported_and_the_run_can_be_resumed(tmp_path: Path) -> None:
    main_process, mark = os.getpid(), tmp_path / "killed"

    def die_in_the_second_epoch(index: int) -> None:
        if os.getpid() != main_process and (tmp_path / "last.safetensors").exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    data, plan = Squares(before_read=die_in_the_second_epoch), tiny_recipe(run__workers=1)
    with pytest.raises(RealtimeSSDError, match=r"was killed.*fewer `workers`.*; the state of"):
        train(tmp_path, plan, data=data)
    assert mark.exists()
    _, result = train(tmp_path, plan, resume=True)
    assert result.epochs == 3


def test_a_diverged_run_names_the_images_of_the_batch(tmp_path: Path) -> None:
    order = np.random.default_rng([0, 0]).permutation(12)
    names = ", ".join(f"square{k}" for k in order[4:8])
    with pytest.raises(RealtimeSSDError) as caught:
        train(tmp_path, tiny_recipe(optimizer__lr=1e30))
    text = str(caught.value)
    assert f"is not finite at step 2 (epoch 1) on the images {names}; check these" in text
    assert text.endswith("lower the learning rate"), "no state has been saved yet"
    assert not (tmp_path / "last.safetensors").exists()


def test_a_diverged_run_keeps_the_last_state(tmp_path: Path) -> None:
    plan = tiny_recipe(run__epochs=1)
    train(tmp_path, plan)
    before = (tmp_path / "last.safetensors").read_bytes()
    plan = tiny_recipe(run__epochs=30)
    trainer = Trainer(
        tiny_ssd(),
        plan,
        Squares(),
        None,
        RunFolder(tmp_path, resume=True),
        SINGLE_PROCESS,
        RecordingReporter(),
    )
    trainer.resume()
    trainer.learning_rate = lambda step: 1e30
    with pytest.raises(RealtimeSSDError, match=r"last complete epoch is in '.*last\.safetensors'"):
        trainer.run()
    assert (tmp_path / "last.safetensors").read_bytes() == before


def test_fp16_skips_steps_that_overflow_until_the_scale_is_minimal(tmp_path: Path) -> None:
    def overflow(gradient: torch.Tensor) -> torch.Tensor:
        return gradient * torch.inf

    model = tiny_ssd(norm=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.get_parameter("backbone.layers.0.weight").register_hook(overflow)  # type: ignore[no-untyped-call]
    reporter = RecordingReporter()
    with pytest.raises(RealtimeSSDError, match="is not finite at step"):
        train(
            tmp_path, tiny_recipe(run__amp="fp16", run__epochs=20), model=model, reporter=reporter
        )
    assert len(reporter.losses) > 20
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_batch_normalization_with_one_image_per_step_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = draw(tmp_path / "images", 1)
    text = '[model]\nname = "ssd300_mobilenet_v1"\noptions = { width = 0.25 }\n[run]\nworkers = 0\n'
    args = ("--data", data, "--output", tmp_path / "run", "--device", "cpu")
    with pytest.raises(SystemExit) as caught:
        main(["train", *map(str, (recipe(tmp_path, text), *args))])
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert "cannot be trained with one image per step" in error
    assert "a --batch of at least two per process" in error
    assert len(error.splitlines()) == 1


def test_a_compiled_network_trains_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = train(tmp_path / "plain", tiny_recipe(run__epochs=1), model=tiny_ssd())
    # Traced but run eagerly, because compiling to C++ takes half a minute.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plan = tiny_recipe(run__epochs=1, run__compile=True)
    compiled, _ = train(tmp_path / "compiled", plan, model=tiny_ssd())
    assert compiled.step.network is not compiled.model
    for name, value in plain.model.state_dict().items():
        assert torch.equal(compiled.model.state_dict()[name], value)


def test_a_missing_compiler_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.config

    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("/no/compiler",))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    torch._dynamo.reset()
    with pytest.raises(
        RealtimeSSDError, match=r"torch\.compile cannot compile the network .* disable `compile`"
    ):
        train(tmp_path / "run", tiny_recipe(run__compile=True), model=tiny_ssd())
    torch._dynamo.reset()


def test_the_loss_of_a_real_network_decreases(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create(
        "ssd_mobilenet_v1_fpn", ("background", "bright"), width=0.25, columns=128, rows=128
    )
    reporter = RecordingReporter()
    plan = tiny_recipe(run__epochs=8, optimizer__name="adamw", optimizer__lr=3e-3)
    train(tmp_path, plan, model=model, reporter=reporter)
    assert sum(reporter.losses[-3:]) < 0.6 * sum(reporter.losses[:3])


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    weights = []
    for parts in (1, 2):
        # Batch normalization depends on the images that pass together, so it is frozen.
        plan = tiny_recipe(run__epochs=1, run__accumulate=parts, model__norm="frozen")
        trainer, _ = train(tmp_path / str(parts), plan, model=tiny_ssd())
        weights.append(trainer.model.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-6, msg=name)
