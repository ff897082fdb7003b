"""Detectors of other projects as the start of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from realtime_ssd_training.export import to_onnx
from realtime_ssd_training.importers.starting_point import load_initial_weights
from realtime_ssd_training.models import SSD, create
from realtime_ssd_training.models.checkpoint import save_checkpoint
from torch import Tensor, nn

from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.frames import Image
from tests.training.importers.reference_mobilenets import Reference, images, torchvision_lite
from tests.training.tiny_ssd import tiny_ssd

NAME = "ssd300_mobilenet_v1"
LABELS = ("background", "cat", "person")


def photos() -> list[Image]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (60, 80, 3)).astype(np.uint8) for _ in range(6)]


def no_photos() -> Sequence[Image]:
    raise AssertionError("these weights contain the statistics of their normalizations")


def build(labels: Sequence[str] = LABELS, name: str = NAME) -> SSD:
    return create(name, labels, width=0.25)


def trained(seed: int = 1) -> SSD:
    """Return a network whose normalizations have statistics and factors of their own."""
    torch.manual_seed(seed)
    model = build()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None:
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.2, 0.2)
    return model.eval()


def run(model: SSD) -> tuple[Tensor, Tensor]:
    side = model.spec.input
    batch = torch.rand(2, 3, side.height, side.width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        scores, offsets = model.eval()(2 * batch - 1)
    return scores, offsets


def test_a_checkpoint_of_this_program_initializes_other_heads_by_class(tmp_path: Path) -> None:
    source = trained()
    save_checkpoint(tmp_path / "a.safetensors", source)
    model = build(("background", "Person", "tree", "cat"))
    result = load_initial_weights(model, tmp_path / "a.safetensors", no_photos)
    assert result.new_layers == ("score_heads",)
    assert result.classes == ("Person", "cat")
    (scores, offsets), (old_scores, old_offsets) = run(model), run(source)
    assert torch.allclose(offsets, old_offsets)
    assert torch.allclose(scores[..., [0, 3, 1]], old_scores, atol=1e-5)
    assert not torch.allclose(scores[..., 2], old_scores[..., 1], atol=1e-2)


def test_a_graph_without_normalizations_keeps_its_outputs(tmp_path: Path) -> None:
    """Training continues with statistics of photos, as if the graph still had normalizations."""
    source = trained()
    onnx.save(to_onnx(source), str(tmp_path / "a.onnx"))
    model = build()
    result = load_initial_weights(model, tmp_path / "a.onnx", photos)
    assert result.loaded == result.total
    assert result.new_layers == ()
    for actual, expected in zip(run(model), run(source), strict=True):
        assert torch.allclose(actual, expected, atol=1e-4)
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    original = [layer for layer in source.modules() if isinstance(layer, nn.BatchNorm2d)]
    spread = torch.stack([norm.weight.min() for norm in norms])
    assert (spread > 0).all()
    assert not torch.allclose(norms[0].weight, original[0].weight)
    before = run(model)
    model.train()
    for layer in norms:
        layer.momentum = 1.0
    model(torch.stack([torch.rand(3, 300, 300) for _ in range(2)]) * 2 - 1)
    after = run(model)
    assert torch.isfinite(after[0]).all()
    assert (after[0] - before[0]).abs().mean() < before[0].abs().mean()


def test_a_graph_with_other_classes_and_another_input_is_adapted(tmp_path: Path) -> None:
    source = trained()
    onnx.save(to_onnx(source), str(tmp_path / "a.onnx"))
    model = build(("background", "a", "b", "c"))
    size = replace(model.spec.input, channels="RGB", mean=(127.5,) * 3, scale=(1 / 255,) * 3)
    model.replace_spec(replace(model.spec, input=size))
    result = load_initial_weights(model, tmp_path / "a.onnx", photos)
    assert result.new_layers == ("score_heads",)
    image = photos()[0]
    from realtime_ssd_training.models.initial_weights import input_batches

    outputs = []
    for network in (model, source):
        with torch.no_grad():
            outputs.append(network.eval()(input_batches([image], network.spec.input)[0])[1])
    assert torch.allclose(outputs[0], outputs[1], atol=1e-3)


def test_a_checkpoint_of_another_project_is_a_start(tmp_path: Path) -> None:
    net = Reference(1e-3, 0.2)
    torchvision_lite(net, images(3, 320, seed=1), 5)
    torch.save({"model": net.weights, "epoch": 1}, tmp_path / "coco.pth")
    model = create("ssdlite320_mobilenet_v3_large", LABELS)
    result = load_initial_weights(model, tmp_path / "coco.pth", no_photos)
    assert result.new_layers == ("score_heads",)
    with torch.no_grad():
        batch = images(1, 320, seed=2)
        expected = torchvision_lite(net, batch, 5)[1]
        actual = model.eval()(batch)[1]
    assert torch.allclose(actual.view(-1), expected.reshape(-1), atol=1e-3)


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.safetensors", trained())
    with pytest.raises(ModelError, match=r"no weights in .* fit 'tiny'; use a recipe of the same"):
        load_initial_weights(tiny_ssd(), tmp_path / "a.safetensors", no_photos)
    onnx.save(to_onnx(trained()), str(tmp_path / "a.onnx"))
    with pytest.raises(ModelError, match=r"no weights in .* fit 'ssd_mobilenet_v1_fpn'"):
        load_initial_weights(create("ssd_mobilenet_v1_fpn", LABELS), tmp_path / "a.onnx", photos)
    (tmp_path / "net.caffemodel").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"its folder has 0 \.prototxt files"):
        load_initial_weights(build(), tmp_path / "net.caffemodel", photos)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/best.safetensors").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"use the file best\.safetensors in it"):
        load_initial_weights(build(), tmp_path / "run", photos)
