"""The loop: what a step does, what a run writes, and how it ends when numbers overflow."""

from __future__ import annotations

import csv
import math
import os
import signal
from collections.abc import Collection
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from realtime_ssd_training.data import Problem, Sample, Subset
from realtime_ssd_training.engine.checkpoint import read_checkpoint
from realtime_ssd_training.engine.distributed import World
from realtime_ssd_training.engine.run_folder import RunFolder
from realtime_ssd_training.engine.train import Trainer
from realtime_ssd_training.evaluation.validation import score_model
from realtime_ssd_training.models import create
from realtime_ssd_training.models.ssd import SSD
from torch import nn

from realtime_ssd.cli import main
from realtime_ssd.core.errors import RealtimeSSDError
from tests.training.scenes import draw, recipe
from tests.training.tiny_ssd import Listener, Squares, tiny_recipe, tiny_ssd, train


def plain_steps(model: SSD, trainer: Trainer, count: int, clip: float = 0.0) -> None:
    """Train with SGD by hand on the batches that a trainer gets."""
    loss = trainer.loss
    speed = [torch.zeros_like(value) for value in model.parameters()]
    model.train()
    for number, batch in enumerate(trainer.loader.epoch(0)):
        if number == count:
            break
        model.zero_grad()
        loss(*model(batch.inputs(model.spec.input)), batch.targets).backward()
        slopes = [value.grad for value in model.parameters() if value.grad is not None]
        length = math.sqrt(sum(float((slope**2).sum()) for slope in slopes))
        factor = min(1.0, clip / (length + 1e-6)) if clip else 1.0
        with torch.no_grad():
            for value, slope, moved in zip(model.parameters(), slopes, speed, strict=True):
                moved.mul_(0.9).add_(slope * factor + 5e-4 * value)
                value.sub_(0.05 * moved)


@pytest.mark.parametrize("clip", [0.0, 0.5])
@pytest.mark.parametrize("channels_last", [True, False])
def test_an_epoch_is_sgd_on_the_loss(tmp_path: Path, clip: float, channels_last: bool) -> None:
    plan = tiny_recipe(
        run__epochs=1,
        run__ema=0.0,
        run__channels_last=channels_last,
        optimizer__clip=clip,
    )
    trainer, outcome = train(tmp_path, plan, model=tiny_ssd())
    by_hand = tiny_ssd()
    plain_steps(by_hand, trainer, 3, clip)
    assert (outcome.epochs, trainer.progress.step) == (1, 3)
    for (name, value), (_, wanted) in zip(
        trainer.model.state_dict().items(), by_hand.state_dict().items(), strict=True
    ):
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-6, msg=name)


def test_memory_layout_and_precision_are_those_of_the_recipe(tmp_path: Path) -> None:
    seen: list[tuple[bool, torch.dtype]] = []

    def note(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        last = inputs[0].is_contiguous(memory_format=torch.channels_last)
        seen.append((last, output.dtype))

    for number, (last, amp, kind) in enumerate(
        (
            (True, "none", torch.float32),
            (False, "none", torch.float32),
            (True, "bf16", torch.bfloat16),
            (True, "fp16", torch.float16),
        )
    ):
        model = tiny_ssd()
        model.backbone.get_submodule("layers.0").register_forward_hook(note)  # type: ignore[arg-type]
        plan = tiny_recipe(run__epochs=1, run__channels_last=last, run__amp=amp)
        trainer, _ = train(tmp_path / str(number), plan, model=model)
        assert seen[0] == (last, kind)
        weight = model.get_parameter("backbone.layers.0.weight")
        assert weight.dtype == torch.float32
        assert weight.is_contiguous(memory_format=torch.channels_last) == last
        assert trainer.scaler.is_enabled() == (amp == "fp16")
        seen.clear()


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_learns_what_single_does(tmp_path: Path, amp: str) -> None:
    losses = {}
    for kind in ("none", amp):
        listener = Listener()
        plan = tiny_recipe(run__epochs=2, run__amp=kind, optimizer__lr=0.002)
        train(tmp_path / kind, plan, model=tiny_ssd(), listener=listener)
        losses[kind] = listener.losses
    assert losses[amp] == pytest.approx(losses["none"], rel=0.04)  # fp16 skips its first step
    assert losses[amp] != losses["none"]


def test_fp16_goes_on_with_the_scale_it_had(tmp_path: Path) -> None:
    plan = tiny_recipe(run__epochs=2, run__amp="fp16")
    one, _ = train(tmp_path / "a", plan)
    train(tmp_path / "b", plan, listener=Listener((0, 1)))
    other, _ = train(tmp_path / "b", plan, resume=True)
    assert one.scaler.state_dict() == other.scaler.state_dict()
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name])


def test_frozen_normalisation_stays(tmp_path: Path) -> None:
    model = tiny_ssd()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train(tmp_path, tiny_recipe(model__norm="frozen", run__epochs=1), model=model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == (".layers.1." in name), name


def test_the_average_is_what_is_scored_and_kept(tmp_path: Path) -> None:
    trainer, _ = train(tmp_path, tiny_recipe(run__epochs=2), val=Squares(4))
    assert trainer.average is not None
    best = read_checkpoint(tmp_path / "best.safetensors").weights
    for name, value in trainer.average.tensors.items():
        assert torch.equal(value, best[name])
    assert any(not torch.equal(v, best[k]) for k, v in trainer.model.state_dict().items())


def test_rates_and_rows(tmp_path: Path) -> None:
    listener = Listener()
    plan = tiny_recipe(schedule__milestones=[1, 2], schedule__warmup=2, schedule__start=0.5)
    trainer, _ = train(tmp_path, plan, listener=listener, val=Squares(4))
    assert listener.rates == pytest.approx([0.025, 0.0375, 0.05] + [0.005] * 3 + [0.0005] * 3)
    assert [row.epoch for row in listener.rows] == [1, 2, 3]
    assert [row.step for row in listener.rows] == [3, 6, 9]
    for number, row in enumerate(listener.rows):
        part = listener.losses[3 * number : 3 * number + 3]
        assert row.loss == pytest.approx(sum(part) / 3)
        assert row.loss == pytest.approx(row.score_loss + row.offset_loss)
        assert row.lr == listener.rates[3 * number + 2]
        assert row.images_per_second > 0
    with (tmp_path / "metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [{k: None if v == "" else float(v) for k, v in line.items()} for line in table] == [
        row.values() for row in trainer.rows
    ]
    picture = cv2.imread(str(tmp_path / "curves.png"))
    assert picture is not None
    assert picture.std() > 5


def test_scored_only_now_and_then(tmp_path: Path) -> None:
    trainer, _ = train(tmp_path, tiny_recipe(run__epochs=5, run__evaluate_every=2), val=Squares(4))
    assert [row.score is not None for row in trainer.rows] == [False, True, False, True, True]


class Torn(Squares):
    """Squares of which some can no longer be read."""

    def __init__(self, count: int, torn: Collection[int]) -> None:
        super().__init__(count)
        self.torn = torn

    def __getitem__(self, index: int) -> Sample:
        if index in self.torn:
            raise RealtimeSSDError(f"image '{index}' cannot be decoded; replace or remove it")
        return super().__getitem__(index)


@pytest.mark.parametrize("torn", [{0}, {1, 16}, {16}])
def test_unreadable_images_are_no_part_of_the_score(tmp_path: Path, torn: set[int]) -> None:
    # Scoring takes 16 images at once; what is torn shifts the others, or is a batch alone.
    heard: list[Problem] = []
    listener = Listener()
    listener.problems = heard.extend  # type: ignore[method-assign]
    plan, whole = tiny_recipe(run__epochs=2), Squares(17)
    trainer, _ = train(tmp_path, plan, listener=listener, val=Torn(17, torn))
    kept = [k for k in range(17) if k not in torn]
    wanted = score_model(trainer._averaged(), Subset(whole, kept), "voc").mean
    assert 0 < wanted == trainer.rows[-1].score
    assert [problem.file for problem in heard] == [f"square{k}" for k in sorted(torn)]


def test_a_worker_that_is_killed(tmp_path: Path) -> None:
    main_process, mark = os.getpid(), tmp_path / "killed"

    def die_in_the_second_epoch(index: int) -> None:
        if os.getpid() != main_process and (tmp_path / "last.safetensors").exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    data, plan = Squares(before=die_in_the_second_epoch), tiny_recipe(run__workers=1)
    with pytest.raises(RealtimeSSDError, match=r"ended from outside.*; the state of"):
        train(tmp_path, plan, data=data)
    assert mark.exists()
    _, outcome = train(tmp_path, plan, resume=True)
    assert outcome.epochs == 3


def test_nan_names_the_images_of_the_batch(tmp_path: Path) -> None:
    order = np.random.default_rng([0, 0]).permutation(12)
    names = ", ".join(f"square{k}" for k in order[4:8])
    with pytest.raises(RealtimeSSDError) as caught:
        train(tmp_path, tiny_recipe(optimizer__lr=1e30))
    text = str(caught.value)
    assert f"no longer a number at step 2 (epoch 1) on the images {names}; look at" in text
    assert text.endswith("lower the learning rate"), "there is no state to point to yet"
    assert not (tmp_path / "last.safetensors").exists()


def test_a_learning_rate_that_explodes_keeps_the_last_state(tmp_path: Path) -> None:
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
        World(0, 1, torch.device("cpu")),
        Listener(),
    )
    trainer.resume()
    trainer.rate = lambda step: 1e30
    with pytest.raises(RealtimeSSDError, match=r"last whole epoch is in '.*last\.safetensors'"):
        trainer.run()
    assert (tmp_path / "last.safetensors").read_bytes() == before


def test_fp16_skips_steps_that_overflow_but_not_for_ever(tmp_path: Path) -> None:
    model = tiny_ssd(norm=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.get_parameter("backbone.layers.0.weight").register_hook(lambda slope: slope * torch.inf)
    listener = Listener()
    with pytest.raises(RealtimeSSDError, match="no longer a number at step"):
        train(
            tmp_path, tiny_recipe(run__amp="fp16", run__epochs=20), model=model, listener=listener
        )
    assert len(listener.losses) > 20
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_one_image_and_batch_normalisation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = draw(tmp_path / "pictures", 1)
    text = '[model]\nname = "ssd300_mobilenet_v1"\noptions = { width = 0.25 }\n[run]\nworkers = 0\n'
    words = ("--data", data, "--output", tmp_path / "run", "--device", "cpu")
    with pytest.raises(SystemExit) as caught:
        main(["train", *map(str, (recipe(tmp_path, text), *words))])
    said = capsys.readouterr().err
    assert caught.value.code == 2
    assert "cannot learn from one image a step" in said
    assert len(said.splitlines()) == 1


def test_compiled_or_not_the_step_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = train(tmp_path / "plain", tiny_recipe(run__epochs=1), model=tiny_ssd())
    # Traced as ever, but run by PyTorch: translating to C++ takes half a minute.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plan = tiny_recipe(run__epochs=1, run__compile=True)
    compiled, _ = train(tmp_path / "compiled", plan, model=tiny_ssd())
    assert compiled.network is not compiled.model
    for name, value in plain.model.state_dict().items():
        assert torch.equal(compiled.model.state_dict()[name], value)


def test_a_compiler_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.config

    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("/no/compiler",))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    torch._dynamo.reset()
    with pytest.raises(RealtimeSSDError, match=r"torch\.compile cannot translate the network"):
        train(tmp_path / "run", tiny_recipe(run__compile=True), model=tiny_ssd())
    torch._dynamo.reset()


def test_the_loss_goes_down_on_a_real_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create(
        "ssd_mobilenet_v1_fpn", ("background", "bright"), width=0.25, columns=128, rows=128
    )
    listener = Listener()
    plan = tiny_recipe(run__epochs=8, optimizer__name="adamw", optimizer__lr=3e-3)
    train(tmp_path, plan, model=model, listener=listener)
    assert sum(listener.losses[-3:]) < 0.6 * sum(listener.losses[:3])
