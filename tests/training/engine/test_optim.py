"""Schedules, optimisers and the moving average against PyTorch's own and plain loops."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from realtime_ssd_training.engine.optim import (
    Average,
    build_optimizer,
    learning_rate,
    load_state,
    set_rate,
    state_tensors,
)
from realtime_ssd_training.recipe import OptimizerPart, SchedulePart
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR

from realtime_ssd.core.errors import ModelError

STEPS, EPOCHS, BASE = 7, 6, 0.3


def rates_of(*makers: object) -> list[float]:
    """Let PyTorch's schedulers, all on one optimiser, run for a whole training."""
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=BASE)
    schedulers: list[LRScheduler] = [maker(optimizer) for maker in makers]  # type: ignore[operator]
    rates = []
    for _ in range(STEPS * EPOCHS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return rates


def ours(part: SchedulePart) -> list[float]:
    rate = learning_rate(part, BASE, STEPS, EPOCHS)
    return [rate(step) for step in range(STEPS * EPOCHS)]


@pytest.mark.parametrize(("milestones", "gamma"), [((2, 4), 0.1), ((1,), 0.5), ((), 0.1)])
def test_multistep(milestones: tuple[int, ...], gamma: float) -> None:
    wanted = rates_of(lambda o: MultiStepLR(o, [STEPS * m for m in milestones], gamma))
    found = ours(SchedulePart("multistep", milestones=milestones, gamma=gamma))
    assert found == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("final", [0.0, 0.05])
def test_cosine(final: float) -> None:
    wanted = rates_of(lambda o: CosineAnnealingLR(o, STEPS * EPOCHS, eta_min=final * BASE))
    assert ours(SchedulePart("cosine", final=final)) == pytest.approx(wanted, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("warmup", "start"), [(10, 0.001), (3, 0.5), (7, 0.0001)])
def test_warmup_multiplies_the_schedule(warmup: int, start: float) -> None:
    wanted = rates_of(
        lambda o: LinearLR(o, start_factor=start, total_iters=warmup),
        lambda o: MultiStepLR(o, [STEPS * 2], 0.1),
    )
    found = ours(SchedulePart("multistep", warmup=warmup, start=start, milestones=(2,)))
    assert found == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("kind", ["multistep", "cosine"])
def test_a_short_run_has_a_short_warmup(kind: str) -> None:
    part = SchedulePart(kind, warmup=500, start=0.0)  # type: ignore[arg-type]
    rate, plain = (learning_rate(one, 1.0, 4, 4) for one in (part, replace(part, warmup=0)))
    assert [rate(step) / plain(step) for step in range(6)] == pytest.approx(
        [0, 0.25, 0.5, 0.75, 1, 1]
    )
    assert [rate(step) for step in range(4, 16)] == [plain(step) for step in range(4, 16)]


class Net(nn.Module):
    """A network with every kind of tensor that recipes tell apart."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.fixed = nn.Parameter(torch.ones(4), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.convolution(images)).square().mean() + self.convolution.bias.sum()


def descend(net: Net, part: OptimizerPart, rates: list[float]) -> None:
    optimizer = build_optimizer(net, part)
    for number, rate in enumerate(rates):
        set_rate(optimizer, rate)
        optimizer.zero_grad()
        net(images(number)).backward()
        optimizer.step()


def images(number: int) -> Tensor:
    return torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(number))


@pytest.mark.parametrize(("decay_all", "bias_lr"), [(True, 1.0), (False, 1.0), (False, 2.0)])
def test_sgd_against_a_plain_loop(decay_all: bool, bias_lr: float) -> None:
    torch.manual_seed(0)
    net = Net()
    other = copy.deepcopy(net)
    part = OptimizerPart(
        "sgd", momentum=0.9, weight_decay=0.1, decay_all=decay_all, bias_lr=bias_lr
    )
    rates = [0.1, 0.05, 0.2, 0.01]
    descend(net, part, rates)
    speed: dict[str, Tensor] = {}
    for number, rate in enumerate(rates):
        other.zero_grad()
        other(images(number)).backward()
        with torch.no_grad():
            for name, value in other.named_parameters():
                if value.grad is None:
                    continue
                decays = decay_all or name == "convolution.weight"
                slope = value.grad + (0.1 * value if decays else 0)
                speed[name] = speed[name] * 0.9 + slope if name in speed else slope
                scale = bias_lr if name.endswith("bias") else 1.0
                value.sub_(rate * scale * speed[name])
    for name, value in other.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], value)
    torch.testing.assert_close(net.fixed, torch.ones(4))


def test_adamw_spares_what_has_one_dimension() -> None:
    optimizer = build_optimizer(Net(), OptimizerPart("adamw", weight_decay=0.3, decay_all=False))
    assert isinstance(optimizer, torch.optim.AdamW)
    kinds = {
        group["weight_decay"]: [value.ndim for value in group["params"]]
        for group in optimizer.param_groups
    }
    assert kinds == {0.3: [4], 0.0: [1, 1, 1]}


def test_average_against_a_plain_loop() -> None:
    net = Net()
    average = Average(net, 0.6)
    wanted = {name: value.clone() for name, value in net.state_dict().items()}
    for number in range(1, 12):
        net.train()(images(number))  # moves the statistics of the normalisation
        with torch.no_grad():
            for value in net.parameters():
                value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(7)))
        average.update()
        decay = min(0.6, (1 + number) / (10 + number))
        for name, value in net.state_dict().items():
            if value.is_floating_point():
                wanted[name] = decay * wanted[name] + (1 - decay) * value
    wanted["norm.num_batches_tracked"] = torch.tensor(11)
    assert average.updates == 11
    for name, value in wanted.items():
        torch.testing.assert_close(average.tensors[name], value)
    assert not torch.equal(average.tensors["norm.running_mean"], net.norm.running_mean)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_restored_optimiser_goes_on_as_if_nothing_had_happened(name: str) -> None:
    torch.manual_seed(0)
    net = Net().to(memory_format=torch.channels_last)
    part = OptimizerPart(name)  # type: ignore[arg-type]
    optimizer = build_optimizer(net, part)
    net(images(0)).backward()
    optimizer.step()
    other = copy.deepcopy(net)
    restored = build_optimizer(other, part)
    saved = {
        k: v.clone(memory_format=torch.contiguous_format)
        for k, v in state_tensors(optimizer).items()
    }
    load_state(restored, saved)
    for one, two in ((net, optimizer), (other, restored)):
        one.zero_grad()
        one(images(1)).backward()
        two.step()
    for key, value in net.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    for key, value in state_tensors(optimizer).items():
        found = state_tensors(restored)[key]
        assert torch.equal(value, found)
        assert value.stride() == found.stride(), "memory layout is lost"


@pytest.mark.parametrize(
    "wrong",
    [
        {"99.momentum_buffer": torch.zeros(3)},
        {"0.momentum_buffer": torch.zeros(3)},
        {"x": torch.zeros(3)},
    ],
)
def test_the_memory_of_another_optimiser(wrong: dict[str, Tensor]) -> None:
    with pytest.raises(ModelError, match="belongs to another recipe"):
        load_state(build_optimizer(Net(), OptimizerPart()), wrong)


def test_cosine_ends_near_its_final_value() -> None:
    rate = learning_rate(SchedulePart("cosine", final=0.1), 1.0, 100, 3)
    assert math.isclose(rate(300), 0.1)
    assert rate(299) > rate(300)
