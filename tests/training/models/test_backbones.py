"""Pretrained backbones: download, verification, and equality of the computed features."""

from __future__ import annotations

import hashlib
import pickle
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from realtime_ssd_training.models import SSD, create
from realtime_ssd_training.models.backbones import find_backbone, load_backbone
from realtime_ssd_training.models.checkpoint import save_checkpoint
from realtime_ssd_training.training_run import TrainingRun
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from realtime_ssd.core.errors import ModelError, RealtimeSSDError, UsageError
from realtime_ssd.core.spec import InputSpec
from tests.training.importers.caffe_files import write_caffemodel
from tests.training.scenes import draw, recipe

LABELS = ("background", "a", "b")
CONVOLUTIONS = {0: 64, 2: 64, 5: 128, 7: 128, 10: 256, 12: 256, 14: 256, 17: 512, 19: 512}
CONVOLUTIONS |= {21: 512, 24: 512, 26: 512, 28: 512}
IMAGENET = InputSpec(
    224,
    224,
    "RGB",
    mean=(255 * 0.485, 255 * 0.456, 255 * 0.406),
    scale=(1 / (255 * 0.229), 1 / (255 * 0.224), 1 / (255 * 0.225)),
)


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder without logging."""

    def log_message(self, *_: object) -> None:
        """Discard the message."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "server"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REALTIME_SSD_BACKBONES", str(tmp_path / "cache"))
    return tmp_path / "cache"


def vgg(prefix: str = "features.", *, reduced: bool = False) -> dict[str, Tensor]:
    """Return random weights with the names of torchvision, or of amdegroot if reduced."""
    torch.manual_seed(3)
    weights, channels = {}, 3
    layers = {**CONVOLUTIONS, **({31: 1024, 33: 1024} if reduced else {})}
    for number, outputs in layers.items():
        kernel = 1 if number == 33 else 3
        weights[f"{prefix}{number}.weight"] = torch.randn(outputs, channels, kernel, kernel) * 0.05
        weights[f"{prefix}{number}.bias"] = torch.randn(outputs)
        channels = outputs
    return weights


def pixels(side: int = 40) -> Tensor:
    """Return BGR pixels as floats."""
    return torch.randint(
        0, 256, (1, 3, side, side), generator=torch.Generator().manual_seed(1)
    ).float()


def normalize_pixels(images: Tensor, spec: InputSpec) -> Tensor:
    """Normalize BGR pixels for an input specification."""
    images = images.flip(1) if spec.channels == "RGB" else images
    mean, scale = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.scale))
    return (images - mean) * scale


def first_maps(weights: Mapping[str, Tensor], images: Tensor, names: tuple[str, ...]) -> Tensor:
    for name in names:
        images = functional.conv2d(images, weights[f"{name}.weight"], weights[f"{name}.bias"], 1, 1)
        images = functional.relu(images)
    return images


def low_layers(model: SSD, count: int) -> nn.Sequential:
    """Return the first layers of VGG16."""
    low = model.backbone.get_submodule("low")
    assert isinstance(low, nn.Sequential)
    return nn.Sequential(*list(low)[:count])


@pytest.fixture(scope="module")
def detector() -> SSD:
    return create("ssd300_vgg16", LABELS)


@pytest.mark.parametrize(
    ("prefix", "reduced", "tensors"), [("features.", False, 26), ("", True, 30), ("vgg.", True, 30)]
)
def test_vgg16_weights_of_ssd_projects(
    detector: SSD, tmp_path: Path, prefix: str, reduced: bool, tensors: int
) -> None:
    weights = vgg(prefix, reduced=reduced)
    if not reduced:  # torchvision's file has a classifier of NaN
        weights["classifier.0.weight"] = torch.full((4, 4), torch.nan)
    torch.save(weights, tmp_path / "vgg.pth")
    assert load_backbone(detector, str(tmp_path / "vgg.pth"))[0] == tensors
    spec = InputSpec(300, 300, "RGB", mean=(123.0, 117.0, 104.0))
    expected = first_maps(weights, normalize_pixels(pixels(), spec), (f"{prefix}0", f"{prefix}2"))
    with torch.no_grad():
        features = low_layers(detector, 4)(normalize_pixels(pixels(), detector.spec.input))
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-2)
    loaded = detector.backbone.state_dict()
    names = {5: "low.5", 21: "low.21", 24: "high.1", 26: "high.3", 28: "high.5"}
    names |= {31: "high.8", 33: "high.10"} if reduced else {}
    for number, name in names.items():
        assert torch.equal(loaded[f"{name}.weight"], weights[f"{prefix}{number}.weight"])
        assert torch.equal(loaded[f"{name}.bias"], weights[f"{prefix}{number}.bias"])


def test_vgg16_weights_of_imagenet_include_fc6_and_fc7(detector: SSD, tmp_path: Path) -> None:
    weights = vgg()
    torch.manual_seed(4)
    weights["classifier.0.weight"] = torch.randn(1, 512 * 49).expand(4096, -1).clone()
    weights["classifier.0.weight"] += torch.arange(4096)[:, None]
    weights["classifier.0.bias"] = torch.arange(4096).float()
    weights["classifier.3.weight"] = torch.arange(4096).float().repeat(4096, 1)
    weights["classifier.3.bias"] = torch.arange(4096).float() + 0.5
    torch.save(weights, tmp_path / "vgg.pth")
    assert load_backbone(detector, str(tmp_path / "vgg.pth"))[0] == 30
    loaded = detector.backbone.state_dict()
    # Output channel 4·n, input channel c, position (3·y, 3·x) of the 7 × 7 kernel.
    for n, c, y, x in ((0, 0, 0, 0), (5, 7, 1, 2), (1023, 511, 2, 2)):
        column = c * 49 + 3 * y * 7 + 3 * x
        assert loaded["high.8.weight"][n, c, y, x] == weights["classifier.0.weight"][4 * n, column]
        assert loaded["high.10.weight"][n, c, 0, 0] == 4 * c
    assert torch.equal(loaded["high.8.bias"], torch.arange(0, 4096, 4).float())
    assert torch.equal(loaded["high.10.bias"], torch.arange(0, 4096, 4) + 0.5)
    # The input of the file has other channels and scales; padding makes the border differ.
    expected = first_maps(weights, normalize_pixels(pixels(), IMAGENET), ("features.0",))
    with torch.no_grad():
        features = low_layers(detector, 2)(normalize_pixels(pixels(), detector.spec.input))
    torch.testing.assert_close(
        features[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], rtol=1e-4, atol=1e-4
    )


def conv_norm(
    weights: dict[str, Tensor], name: str, parts: tuple[int, int], shape: tuple[int, ...]
) -> None:
    """Add a convolution without bias and its normalization, named as torchvision does."""
    first, second = (f"{name}.{part}" if name else str(part) for part in parts)
    weights[f"{first}.weight"] = torch.randn(shape) * 0.2
    for kind in ("weight", "bias", "running_mean"):
        weights[f"{second}.{kind}"] = torch.randn(shape[0])
    weights[f"{second}.running_var"] = torch.rand(shape[0]) + 0.5
    weights[f"{second}.num_batches_tracked"] = torch.tensor(3)


def mobilenet_v2() -> dict[str, Tensor]:
    """Return random weights of torchvision's mobilenet_v2."""
    torch.manual_seed(6)
    weights: dict[str, Tensor] = {}
    conv_norm(weights, "features.0", (0, 1), (32, 3, 3, 3))
    channels, number = 32, 1
    for factor, outputs, count in (
        (1, 16, 1),
        (6, 24, 2),
        (6, 32, 3),
        (6, 64, 4),
        (6, 96, 3),
        (6, 160, 3),
        (6, 320, 1),
    ):
        for _ in range(count):
            expanded, name, index = channels * factor, f"features.{number}.conv", 0
            if factor > 1:
                conv_norm(weights, f"{name}.0", (0, 1), (expanded, channels, 1, 1))
                index = 1
            conv_norm(weights, f"{name}.{index}", (0, 1), (expanded, 1, 3, 3))
            conv_norm(weights, name, (index + 1, index + 2), (outputs, expanded, 1, 1))
            channels, number = outputs, number + 1
    conv_norm(weights, "features.18", (0, 1), (1280, 320, 1, 1))
    weights["classifier.1.weight"], weights["classifier.1.bias"] = (
        torch.randn(1000, 1280),
        torch.randn(1000),
    )
    return weights


def apply_conv_norm(
    weights: dict[str, Tensor],
    images: Tensor,
    layers: tuple[str, str],
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> Tensor:
    convolution, norm = layers
    features = functional.conv2d(
        images,
        weights[f"{convolution}.weight"],
        stride=stride,
        padding=padding,
        groups=groups,
    )
    mean, variance = weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"]
    return functional.batch_norm(
        features, mean, variance, weights[f"{norm}.weight"], weights[f"{norm}.bias"]
    )


def test_mobilenet_v2_weights_of_torchvision(tmp_path: Path) -> None:
    weights = mobilenet_v2()
    torch.save(weights, tmp_path / "v2.pth")
    model = create("ssd300_mobilenet_v2", LABELS).eval()
    count, _ = load_backbone(model, str(tmp_path / "v2.pth"))
    assert count == len(weights) - 2
    # The stem and the first two blocks, computed with the names of the file.
    images = normalize_pixels(pixels(64), IMAGENET)
    images = functional.relu6(
        apply_conv_norm(weights, images, ("features.0.0", "features.0.1"), stride=2, padding=1)
    )
    name = "features.1.conv"
    images = functional.relu6(
        apply_conv_norm(weights, images, (f"{name}.0.0", f"{name}.0.1"), padding=1, groups=32)
    )
    images = apply_conv_norm(weights, images, (f"{name}.1", f"{name}.2"))
    name = "features.2.conv"
    images = functional.relu6(apply_conv_norm(weights, images, (f"{name}.0.0", f"{name}.0.1")))
    images = functional.relu6(
        apply_conv_norm(
            weights, images, (f"{name}.1.0", f"{name}.1.1"), stride=2, padding=1, groups=96
        )
    )
    expected = apply_conv_norm(weights, images, (f"{name}.2", f"{name}.3"))
    with torch.no_grad():
        features = model.backbone.get_submodule("stem")(
            normalize_pixels(pixels(64), model.spec.input)
        )
        for block in list(model.backbone.get_submodule("blocks").children())[:2]:
            features = block(features)
    torch.testing.assert_close(
        features[..., 2:-1, 2:-1], expected[..., 2:-1, 2:-1], rtol=1e-3, atol=1e-3
    )
    loaded = model.backbone.state_dict()
    assert torch.equal(loaded["last.0.weight"], weights["features.18.0.weight"])
    assert torch.equal(loaded["blocks.16.rest.1.1.bias"], weights["features.17.conv.3.bias"])


def test_mobilenet_v3_weights_need_the_full_tail(tmp_path: Path) -> None:
    model = create("ssdlite320_mobilenet_v3_large", LABELS, reduced_tail=False)
    names = [k for k in model.backbone.state_dict() if not k.startswith("extras.")]
    values = model.backbone.state_dict()
    torch.save(
        {f"features.{k}": values[name] + 1 for k, name in enumerate(names)}, tmp_path / "v3.pth"
    )
    before = values["last.0.weight"].clone()
    assert load_backbone(model, str(tmp_path / "v3.pth"))[0] == len(names)
    assert torch.equal(model.backbone.state_dict()["last.0.weight"], before + 1)
    small = create("ssdlite320_mobilenet_v3_large", LABELS)
    with pytest.raises(ModelError, match=r"does not fit the backbone .* another shape"):
        load_backbone(small, str(tmp_path / "v3.pth"))


def test_the_backbone_of_a_checkpoint_is_loaded(tmp_path: Path) -> None:
    options = {"width": 0.25, "columns": 128, "rows": 128}
    trained = create("ssd_mobilenet_v1_fpn", LABELS, **options)
    save_checkpoint(tmp_path / "m.safetensors", trained)
    other = create("ssd_mobilenet_v1_fpn", (*LABELS, "c"), **options)
    heads = {k: v.clone() for k, v in other.state_dict().items() if "heads" in k}
    count, total = load_backbone(other, str(tmp_path / "m.safetensors"))
    assert count == total
    for name, value in trained.backbone.state_dict().items():
        assert torch.equal(other.backbone.state_dict()[name], value)
    for name, value in heads.items():
        assert torch.equal(other.state_dict()[name], value)


def test_a_backbone_is_downloaded_once_and_verified_every_time(
    server: str, cache: Path, tmp_path: Path
) -> None:
    torch.save(vgg(), tmp_path / "server/vgg.pth")
    data = (tmp_path / "server/vgg.pth").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    path = find_backbone(f"{server}/vgg.pth#{digest[:8]}")
    assert path == cache / "vgg.pth"
    assert path.read_bytes() == data
    (tmp_path / "server/vgg.pth").unlink()
    assert find_backbone(f"{server}/vgg.pth#{digest}") == path  # no longer on the server
    path.write_bytes(data[:-1])
    with pytest.raises(
        RealtimeSSDError, match=r"cannot be downloaded .* set `backbone` to its path"
    ):
        find_backbone(f"{server}/vgg.pth#{digest[:8].upper()}")
    (tmp_path / "server/vgg.pth").write_bytes(data)
    assert find_backbone(f"{server}/vgg.pth#{digest[:8]}").read_bytes() == data


def test_a_download_with_another_checksum_is_rejected(
    server: str, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "server/vgg.pth").write_bytes(b"something else")
    with pytest.raises(ModelError, match=r"expected 12345678\.\.\.; the download was discarded"):
        find_backbone(f"{server}/vgg.pth#12345678")
    assert list(cache.iterdir()) == []
    for address in (f"{server}/vgg.pth", f"{server}/vgg.pth#1234567", f"{server}/vgg.pth#ghijklmn"):
        with pytest.raises(UsageError, match="needs a checksum; use URL#SHA256"):
            find_backbone(address)
    with pytest.raises(RealtimeSSDError, match="cannot be downloaded"):
        find_backbone("http://127.0.0.1:9/vgg.pth#12345678")


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


def test_files_without_a_suitable_backbone_are_rejected(detector: SSD, tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "malicious.pth").write_bytes(
        pickle.dumps({"features.0.weight": Malicious(tmp_path / "mark")}, 2)
    )
    for name in ("text.pth", "list.pth", "malicious.pth"):
        with pytest.raises(
            ModelError, match=r"is not a PyTorch file of plain weights|has no state_dict"
        ):
            load_backbone(detector, str(tmp_path / name))
    assert not (tmp_path / "mark").exists()
    torch.save({"layer1.0.weight": torch.zeros(3)}, tmp_path / "resnet.pth")
    with pytest.raises(ModelError, match="it has none of its layers"):
        load_backbone(detector, str(tmp_path / "resnet.pth"))
    torch.save({"features.0.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "thin.pth")
    with pytest.raises(ModelError, match=r"its 'low\.0\.weight' has another shape"):
        load_backbone(detector, str(tmp_path / "thin.pth"))
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="is damaged or is not a checkpoint of this program"):
        load_backbone(detector, str(tmp_path / "other.safetensors"))
    with pytest.raises(UsageError, match=r"`backbone` file .* does not exist"):
        load_backbone(detector, str(tmp_path / "missing.pth"))
    small = create("ssd_mobilenet_v1_fpn", LABELS)
    with pytest.raises(UsageError, match="cannot use pretrained weights of other projects"):
        load_backbone(small, str(tmp_path / "resnet.pth"))


def test_vgg16_weights_of_caffe(detector: SSD, tmp_path: Path) -> None:
    weights = vgg("", reduced=True)
    stages = {0: "conv1_1", 2: "conv1_2", 21: "conv4_3", 28: "conv5_3", 31: "fc6", 33: "fc7"}
    layers = {
        name: [weights[f"{k}.weight"].numpy(), weights[f"{k}.bias"].numpy()]
        for k, name in stages.items()
    }
    write_caffemodel(tmp_path / "vgg.caffemodel", layers)
    assert load_backbone(detector, str(tmp_path / "vgg.caffemodel"))[0] == 12
    loaded = detector.backbone.state_dict()
    for number, name in {0: "low.0", 21: "low.21", 28: "high.5", 31: "high.8"}.items():
        assert torch.equal(loaded[f"{name}.weight"], weights[f"{number}.weight"])


def test_the_backbone_is_loaded_only_when_a_run_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    data = draw(tmp_path / "images", 2)
    trained = create("ssd_mobilenet_v1_fpn", LABELS, width=0.25, columns=128, rows=128)
    save_checkpoint(tmp_path / "trained.safetensors", trained)
    text = (
        '[model]\nname = "ssd_mobilenet_v1_fpn"\n'
        "options = { width = 0.25, columns = 128, rows = 128 }\n"
        f'backbone = "{tmp_path}/trained.safetensors"\n[run]\nbatch = 2\nworkers = 0\n'
    )
    path, overrides = str(recipe(tmp_path, text)), {"data.train": data}
    TrainingRun(path, tmp_path / "run", overrides, device="cpu").run()
    assert "backbone tensors from pretrained weights" in capsys.readouterr().out
    (tmp_path / "trained.safetensors").unlink()
    longer = {**overrides, "run.epochs": 2}
    TrainingRun(path, tmp_path / "run", longer, resume=True, device="cpu").run()
    output = capsys.readouterr().out
    assert "pretrained" not in output
    assert "epoch 2 " in output
