"""Export of every registered MobileNet model: same outputs, operators of TensorRT 8.6.

VGG16 models are covered by `test_export.py` and by the tests of imported checkpoints.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from realtime_ssd_training.export import TOLERANCE, export_onnx, to_onnx
from realtime_ssd_training.models import SSD, create, names
from realtime_ssd_training.models.ssd import FeatureMaps
from torch import Tensor, nn

from realtime_ssd.core.boxes import AnchorLayer, AnchorSpec
from realtime_ssd.core.preprocess import preprocess
from realtime_ssd.core.spec import InputSpec, ModelSpec
from realtime_ssd.synthetic import StreetScene

MODELS = [name for name in names() if "vgg16" not in name and "resnet" not in name]
STREET = [StreetScene(320, 180, seed=seed).render(40) for seed in (1, 2, 3)]
# Operators of TensorRT 8.6's parser, which does not support HardSwish.
SUPPORTED = {
    "Add", "Clip", "Concat", "Constant", "Conv", "Gather", "GlobalAveragePool", "HardSigmoid",
    "Identity", "MaxPool", "Mul", "Relu", "Reshape", "Resize", "Shape", "Slice", "Transpose",
    "Unsqueeze",
}  # fmt: skip


def build(name: str) -> SSD:
    """Return a narrow network with batch normalization statistics of the images."""
    torch.manual_seed(2)
    model = create(name, ["background", "car", "person"], width=0.25)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.5
    with torch.no_grad():
        model(batch(model))
    return model.eval()


def batch(model: SSD) -> torch.Tensor:
    images = [preprocess(photo, model.spec.input) for photo in STREET]
    return torch.from_numpy(np.stack(images))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", MODELS)
def test_exported_network_equals_pytorch_at_any_batch_size(
    name: str, precision: str, tmp_path: Path
) -> None:
    model, path = build(name), tmp_path / "model.onnx"
    export_onnx(model, path, precision, STREET[:1])
    with torch.no_grad():
        expected = [head.numpy() for head in model(batch(model))]
    assert min(np.ptp(head) for head in expected) > 0.1
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    tolerance = {"fp32": 1e-4, "fp16": 2e-2}[precision]
    for part in (slice(0, 3), slice(1, 2)):
        images = batch(model).numpy()[part]
        outputs = session.run(None, {"image": images})
        for actual, head in zip(outputs, expected, strict=True):
            np.testing.assert_allclose(actual, head[part], tolerance, tolerance)


@pytest.mark.parametrize("name", MODELS)
def test_operators_are_supported_by_tensorrt_8(name: str) -> None:
    model = to_onnx(build(name))
    onnx.checker.check_model(model, full_check=True)
    assert [item.version for item in model.opset_import] == [17]
    assert {node.op_type for node in model.graph.node} <= SUPPORTED


def test_hard_swish_equals_pytorch() -> None:
    from realtime_ssd_training.models.inverted_residuals import HardSwish

    values = torch.linspace(-5, 5, 101)
    torch.testing.assert_close(HardSwish()(values), nn.functional.hardswish(values))


class Canceling(FeatureMaps):
    """Subtracts large numbers, which leaves few significant digits in float32.

    The export folds the normalization into the convolution, which removes the large numbers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 8, 8)
        self.norm = nn.BatchNorm2d(16)
        for values in (self.stem.bias, self.norm.running_mean):
            assert values is not None
            nn.init.constant_(values, 2e5)
        self.channels = (16,)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.norm(self.stem(images))]


def test_tolerance_grows_with_the_rounding_error_of_pytorch(tmp_path: Path) -> None:
    """The error of PyTorch itself exceeds the tolerance of an export."""
    torch.manual_seed(1)
    spec = ModelSpec(
        "rough",
        InputSpec(32, 32, scale=(1 / 64,) * 3),
        AnchorSpec((AnchorLayer(4, 4, 0.25, 0.25, ((0.3, 0.3),)),)),
        ("background", "car"),
    )
    model = SSD(spec, Canceling(), [nn.Conv2d(16, 2, 1)], [nn.Conv2d(16, 4, 1)]).eval()
    images = batch(model)
    with torch.no_grad():
        _, offsets = model(images)
        _, exact = copy.deepcopy(model).double()(images.double())
    assert float(((offsets - exact).abs() / (1 + exact.abs())).max()) > TOLERANCE["fp32"]
    export_onnx(model, tmp_path / "model.onnx", "fp32", STREET)
    assert (tmp_path / "model.onnx").exists()
