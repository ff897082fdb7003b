"""Schedules, optimizers and the moving average, compared with PyTorch and with plain loops."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from msgspec.structs import replace
from realtime_ssd_training.engine.optim import (
    ExponentialMovingAverage,
    build_optimizer,
    build_schedule,
    load_optimizer_tensors,
    optimizer_tensors,
    set_learning_rate,
)
from realtime_ssd_training.recipe import OptimizerConfig, ScheduleConfig
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR

from realtime_ssd.core.errors import ModelError

STEPS, EPOCHS, BASE = 7, 6, 0.3


def torch_rates(*factories: Callable[[SGD], LRScheduler]) -> list[float]:
    """Return the learning rate of every step with PyTorch's schedulers on one optimizer."""
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=BASE)
    schedulers = [factory(optimizer) for factory in factories]
    rates = []
    for _ in range(STEPS * EPOCHS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return rates


def our_rates(config: ScheduleConfig) -> list[float]:
    rate = build_schedule(config, BASE, STEPS, EPOCHS)
    return [rate(step) for step in range(STEPS * EPOCHS)]


@pytest.mark.parametrize(("milestones", "gamma"), [((2, 4), 0.1), ((1,), 0.5), ((), 0.1)])
def test_multistep_equals_that_of_pytorch(milestones: tuple[int, ...], gamma: float) -> None:
    expected = torch_rates(lambda o: MultiStepLR(o, [STEPS * m for m in milestones], gamma))
    rates = our_rates(ScheduleConfig("multistep", milestones=milestones, gamma=gamma))
    assert rates == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("final", [0.0, 0.05])
def test_cosine_equals_that_of_pytorch(final: float) -> None:
    expected = torch_rates(lambda o: CosineAnnealingLR(o, STEPS * EPOCHS, eta_min=final * BASE))
    rates = our_rates(ScheduleConfig("cosine", final=final))
    assert rates == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("warmup", "start"), [(10, 0.001), (3, 0.5), (7, 0.0001)])
def test_warmup_multiplies_the_schedule(warmup: int, start: float) -> None:
    expected = torch_rates(
        lambda o: LinearLR(o, start_factor=start, total_iters=warmup),
        lambda o: MultiStepLR(o, [STEPS * 2], 0.1),
    )
    config = ScheduleConfig("multistep", warmup=warmup, start=start, milestones=(2,))
    assert our_rates(config) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", ["multistep", "cosine"])
def test_warmup_takes_at_most_a_quarter_of_the_run(kind: Literal["multistep", "cosine"]) -> None:
    config = ScheduleConfig(kind, warmup=500, start=0.0)
    rate, plain = (build_schedule(c, 1.0, 4, 4) for c in (config, replace(config, warmup=0)))
    assert [rate(step) / plain(step) for step in range(6)] == pytest.approx(
        [0, 0.25, 0.5, 0.75, 1, 1]
    )
    assert [rate(step) for step in range(4, 16)] == [plain(step) for step in range(4, 16)]


class Net(nn.Module):
    """A network with every kind of parameter that recipes distinguish."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.fixed = nn.Parameter(torch.ones(4), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        assert self.convolution.bias is not None
        features: Tensor = self.norm(self.convolution(images))
        return features.square().mean() + self.convolution.bias.sum()


def descend(net: Net, config: OptimizerConfig, rates: list[float]) -> None:
    optimizer = build_optimizer(net, config)
    for number, rate in enumerate(rates):
        set_learning_rate(optimizer, rate)
        optimizer.zero_grad()
        net(images(number)).backward()
        optimizer.step()


def images(number: int) -> Tensor:
    return torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(number))


@pytest.mark.parametrize(("decay_all", "bias_lr"), [(True, 1.0), (False, 1.0), (False, 2.0)])
def test_sgd_equals_a_plain_loop(decay_all: bool, bias_lr: float) -> None:
    torch.manual_seed(0)
    net = Net()
    other = copy.deepcopy(net)
    config = OptimizerConfig(
        "sgd", momentum=0.9, weight_decay=0.1, decay_all=decay_all, bias_lr=bias_lr
    )
    rates = [0.1, 0.05, 0.2, 0.01]
    descend(net, config, rates)
    velocity: dict[str, Tensor] = {}
    for number, rate in enumerate(rates):
        other.zero_grad()
        other(images(number)).backward()
        with torch.no_grad():
            for name, value in other.named_parameters():
                if value.grad is None:
                    continue
                decays = decay_all or name == "convolution.weight"
                gradient = value.grad + (0.1 * value if decays else 0)
                velocity[name] = velocity[name] * 0.9 + gradient if name in velocity else gradient
                scale = bias_lr if name.endswith("bias") else 1.0
                value.sub_(rate * scale * velocity[name])
    for name, value in other.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], value)
    torch.testing.assert_close(net.fixed, torch.ones(4))


def test_one_dimensional_parameters_may_be_excluded_from_decay() -> None:
    optimizer = build_optimizer(Net(), OptimizerConfig("adamw", weight_decay=0.3, decay_all=False))
    assert isinstance(optimizer, torch.optim.AdamW)
    kinds = {
        group["weight_decay"]: [value.ndim for value in group["params"]]
        for group in optimizer.param_groups
    }
    assert kinds == {0.3: [4], 0.0: [1, 1, 1]}


def test_the_moving_average_equals_a_plain_loop() -> None:
    net = Net()
    average = ExponentialMovingAverage(net, 0.6)
    expected = {name: value.clone() for name, value in net.state_dict().items()}
    for number in range(1, 12):
        net.train()(images(number))  # updates the running statistics of batch normalization
        with torch.no_grad():
            for value in net.parameters():
                value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(7)))
        average.update()
        decay = min(0.6, (1 + number) / (10 + number))
        for name, value in net.state_dict().items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value
    expected["norm.num_batches_tracked"] = torch.tensor(11)
    assert average.updates == 11
    for name, value in expected.items():
        torch.testing.assert_close(average.tensors[name], value)
    assert net.norm.running_mean is not None
    assert not torch.equal(average.tensors["norm.running_mean"], net.norm.running_mean)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_restored_optimizer_takes_the_same_next_step(name: Literal["sgd", "adamw"]) -> None:
    torch.manual_seed(0)
    net: Net = Net().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    config = OptimizerConfig(name)
    optimizer = build_optimizer(net, config)
    net(images(0)).backward()
    optimizer.step()
    other = copy.deepcopy(net)
    restored = build_optimizer(other, config)
    saved = {
        k: v.clone(memory_format=torch.contiguous_format)
        for k, v in optimizer_tensors(optimizer).items()
    }
    load_optimizer_tensors(restored, saved)
    for network, its_optimizer in ((net, optimizer), (other, restored)):
        network.zero_grad()
        network(images(1)).backward()
        its_optimizer.step()
    for key, value in net.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    for key, value in optimizer_tensors(optimizer).items():
        copied = optimizer_tensors(restored)[key]
        assert torch.equal(value, copied)
        assert value.stride() == copied.stride(), "the memory format is lost"


@pytest.mark.parametrize(
    "wrong",
    [
        {"99.momentum_buffer": torch.zeros(3)},
        {"0.momentum_buffer": torch.zeros(3)},
        {"x": torch.zeros(3)},
    ],
)
def test_the_state_of_another_optimizer_is_rejected(wrong: dict[str, Tensor]) -> None:
    with pytest.raises(ModelError, match="belongs to another recipe"):
        load_optimizer_tensors(build_optimizer(Net(), OptimizerConfig()), wrong)


def test_cosine_ends_at_its_final_value() -> None:
    rate = build_schedule(ScheduleConfig("cosine", final=0.1), 1.0, 100, 3)
    assert math.isclose(rate(300), 0.1)
    assert rate(299) > rate(300)
