"""Caffe models: equal to an independent forward pass of the published networks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from realtime_ssd_training.importers import ImportOptions, import_model
from realtime_ssd_training.importers.caffe_text import parse
from realtime_ssd_training.importers.caffe_weights import read_weights
from realtime_ssd_training.importers.labels import VOC_21

from realtime_ssd.core.boxes import to_corners
from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.postprocess import PostProcessor
from tests.training.importers.caffe_files import (
    HEADS,
    Weights,
    random_weights,
    sharpened,
    vgg_definition,
    write_caffemodel,
)
from tests.training.importers.conftest import Ready

torch = pytest.importorskip("torch")
F = torch.nn.functional
DEFINITIONS = "mobilenet_ssd_caffe_definition"


def imported(folder: Path, definition: str, weights: Weights, *, old: bool = False) -> Ready:
    (folder / "deploy.prototxt").write_text(definition)
    write_caffemodel(folder / "net.caffemodel", weights, old=old)
    options = ImportOptions(definition=folder / "deploy.prototxt", overwrite=True)
    done = import_model(folder / "net.caffemodel", folder / "out.onnx", options)
    assert done.dynamic_batch
    return Ready(folder / "out.onnx")


def images(size: int, count: int = 1) -> np.ndarray:
    rng = np.random.default_rng(7)
    return rng.uniform(-1, 1, (count, 3, size, size)).astype(np.float32)


class Forward:
    """The layers of a Caffe network by name, as plain functions."""

    def __init__(self, weights: Weights) -> None:
        self.weights = {
            name: [torch.tensor(array, dtype=torch.float32) for array in arrays]
            for name, arrays in weights.items()
        }

    def conv(self, x, name: str, **options):
        return F.conv2d(x, *self.weights[name], **options)

    def relu(self, x, name: str, **options):
        return F.relu(self.conv(x, name, **options))

    def rows(self, x, name: str, columns: int, **options):
        head = self.conv(x, name, **options)
        return head.permute(0, 2, 3, 1).reshape(len(x), -1, columns)

    def unit(self, x, name: str, stride: int = 1, groups: int = 1):
        """MobileNet's convolution, BatchNorm and Scale where the definition has them."""
        weight, *bias = self.weights[name]
        padding = weight.shape[-1] // 2
        x = F.conv2d(x, weight, *bias, stride=stride, padding=padding, groups=groups)
        if f"{name}/bn" in self.weights:
            mean, variance, count = self.weights[f"{name}/bn"]
            x = F.batch_norm(x, mean / count, variance / count, eps=1e-5)
            factor, shift = self.weights[f"{name}/scale"]
            x = x * factor[:, None, None] + shift[:, None, None]
        return F.relu(x)


def mobilenet(weights: Weights, batch: np.ndarray) -> list[np.ndarray]:
    net, x, maps = Forward(weights), torch.from_numpy(batch), {}
    x = net.unit(x, "conv0", 2)
    for number in range(1, 14):
        x = net.unit(x, f"conv{number}/dw", 2 if number in (2, 4, 6, 12) else 1, x.shape[1])
        x = maps[f"conv{number}"] = net.unit(x, f"conv{number}")
    for number in range(14, 18):
        x = net.unit(net.unit(x, f"conv{number}_1"), f"conv{number}_2", 2)
        maps[f"conv{number}_2"] = x
    names = ["conv11", "conv13", *(f"conv{number}_2" for number in range(14, 18))]
    scores = [net.rows(maps[name], f"{name}_mbox_conf", 21) for name in names]
    offsets = [net.rows(maps[name], f"{name}_mbox_loc", 4) for name in names]
    return [torch.cat(scores, 1).numpy(), torch.cat(offsets, 1).numpy()]


def vgg(weights: Weights, batch: np.ndarray, size: int, classes: int) -> list[np.ndarray]:
    net, x, maps = Forward(weights), torch.from_numpy(batch), {}
    for stage, count in enumerate((2, 2, 3, 3, 3), 1):
        for number in range(1, count + 1):
            x = net.relu(x, f"conv{stage}_{number}", padding=1)
        if stage == 4:
            length = (x.pow(2).sum(1, keepdim=True) + 1e-10).sqrt()
            factor = net.weights["conv4_3_norm"][0][:, None, None]
            maps["conv4_3_norm"] = x / length * factor
        x = F.max_pool2d(x, 3, 1, 1) if stage == 5 else F.max_pool2d(x, 2, 2, ceil_mode=True)
    x = net.relu(x, "fc6", padding=6, dilation=6)
    x = maps["fc7"] = net.relu(x, "fc7")
    halving, plain = {"stride": 2, "padding": 1}, {}
    plan = (halving, halving, plain, plain) if size == 300 else (*(halving,) * 4, {"padding": 1})
    for stage, options in enumerate(plan, 6):
        x = net.relu(net.relu(x, f"conv{stage}_1"), f"conv{stage}_2", **options)
        maps[f"conv{stage}_2"] = x
    names = [name for name, *_ in HEADS[size]]
    scores = [net.rows(maps[n], f"{n}_mbox_conf", classes, padding=1) for n in names]
    offsets = [net.rows(maps[n], f"{n}_mbox_loc", 4, padding=1) for n in names]
    return [torch.cat(scores, 1).numpy(), torch.cat(offsets, 1).numpy()]


def close(mine: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    for a, b in zip(mine, theirs, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["MobileNetSSD_deploy", "deploy"])
@torch.no_grad()
def test_mobilenet_equals_an_independent_forward(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    definition = (shared_data / DEFINITIONS / f"{name}.prototxt").read_text()
    weights = random_weights(definition)
    ready = imported(tmp_path, definition, weights)
    batch = images(300, 2)
    close(ready.heads(batch), mobilenet(weights, batch))
    spec = ready.spec
    assert (spec.input.channels, spec.input.mean, spec.input.scale) == (
        "BGR",
        (127.5,) * 3,
        (0.007843,) * 3,
    )
    assert (
        spec.thresholds.score_threshold,
        spec.thresholds.iou_threshold,
        spec.thresholds.max_detections,
    ) == (0.25, 0.45, 100)
    golden = np.load(shared_data / "golden/priors_mobilenet_ssd_caffe_xyxy_f32.npy")
    np.testing.assert_allclose(to_corners(spec.boxes.boxes()), golden, atol=1e-6)


@pytest.mark.parametrize("name", ["MobileNetSSD_deploy", "deploy", "vgg300", "vgg512"])
def test_heads_and_detections_equal_opencv(
    tmp_path: Path, request: pytest.FixtureRequest, name: str
) -> None:
    """OpenCV 4 read the same files; its answers are kept in opencv_caffe.json."""
    size = 512 if name == "vgg512" else 300
    if name.startswith("vgg"):
        definition = vgg_definition(size, 21 if size == 300 else 81, width=1 / 16)
        ready = imported(tmp_path, definition, random_weights(definition))
        threshold = 0.01
    else:
        folder = request.getfixturevalue("shared_data") / DEFINITIONS
        definition = (folder / f"{name}.prototxt").read_text()
        ready = imported(tmp_path, definition, sharpened(random_weights(definition)))
        threshold = ready.spec.thresholds.score_threshold
    wanted = json.loads((Path(__file__).parent / "opencv_caffe.json").read_text())[name]
    scores, offsets = ready.heads(images(size))
    for mine, theirs in ((scores, wanted["scores"]), (offsets, wanted["offsets"])):
        sampled = mine.ravel()[:: mine.size // 40]
        np.testing.assert_allclose(sampled, theirs, rtol=1e-4, atol=1e-4)
    found = PostProcessor(ready.spec.with_thresholds(score_threshold=threshold))(
        scores[0], offsets[0]
    )
    mine = np.column_stack([found.class_ids, found.scores, found.boxes])
    np.testing.assert_allclose(mine[:20], wanted["detections"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "classes", "boxes"), [(300, 21, 8732), (512, 81, 24564)])
@torch.no_grad()
def test_vgg_equals_an_independent_forward(
    tmp_path: Path, size: int, classes: int, boxes: int
) -> None:
    definition = vgg_definition(size, classes, width=1 / 16)
    weights = random_weights(definition)
    ready = imported(tmp_path, definition, weights, old=size == 300)
    batch = images(size)
    close(ready.heads(batch), vgg(weights, batch, size, classes))
    spec = ready.spec
    assert (spec.num_boxes, spec.num_classes, spec.activation) == (boxes, classes, "softmax")
    assert (spec.input.channels, spec.input.mean) == ("BGR", (104.0, 117.0, 123.0))
    assert (
        spec.thresholds.pre_nms_top_k,
        spec.thresholds.max_detections,
        spec.thresholds.score_threshold,
    ) == (400, 200, 0.5)
    assert spec.variances == (0.1, 0.1, 0.2, 0.2)
    assert spec.labels[-1] == {21: VOC_21[-1], 81: "toothbrush"}[classes]


def test_vgg_boxes_equal_those_of_the_original_layer(shared_data: Path, tmp_path: Path) -> None:
    definition = vgg_definition(300, 21, width=1 / 16)
    boxes = imported(tmp_path, definition, random_weights(definition)).spec.boxes.boxes()
    golden = np.load(shared_data / "golden/priors_ssd300_vgg16_voc_xyxy_f32.npy")
    np.testing.assert_allclose(to_corners(boxes), golden, atol=1e-6)


@pytest.mark.parametrize("size", [300, 512])
@pytest.mark.parametrize(("classes", "recipe"), [(21, "voc"), (81, "coco")])
def test_vgg_boxes_are_those_of_our_own_network(
    tmp_path: Path, size: int, classes: int, recipe: str
) -> None:
    from realtime_ssd_training.models import create

    definition = vgg_definition(size, classes, width=1 / 16)
    spec = imported(tmp_path, definition, random_weights(definition)).spec
    own = create(f"ssd{size}_vgg16", ["background", "a"], boxes=recipe).spec
    np.testing.assert_allclose(spec.boxes.boxes(), own.boxes.boxes(), atol=1e-6)
    assert spec.input.mean == own.input.mean
    assert len(spec.labels) == classes


def test_missing_extra_and_misshapen_weights_are_named(tmp_path: Path) -> None:
    definition = vgg_definition(300, 21, width=1 / 16)
    weights = random_weights(definition)
    fc7 = weights["fc7"]
    wrong = {
        "'fc7'": {key: value for key, value in weights.items() if key != "fc7"},
        "weights for fc8": {**weights, "fc8": fc7},
        r"'fc7' .*shapes": {**weights, "fc7": [fc7[0][:, :-1], fc7[1]]},
        r"'conv4_3_norm' .*shapes": {**weights, "conv4_3_norm": [np.ones(1)]},
    }
    for sentence, given in wrong.items():
        with pytest.raises(ModelError, match=sentence):
            imported(tmp_path, definition, given)
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("CENTER_SIZE", "CORNER"), "CENTER_SIZE"),
        (("DetectionOutput", "MultiBoxLoss"), "no DetectionOutput"),
        (('type: "Normalize"', 'type: "LRN"'), "'conv4_3_norm' .*not supported"),
        (('bottom: "fc6"', 'bottom: "fc5"'), "takes 'fc5'"),
        (("dim: 300 }", "dim: 300"), "ends in the middle"),
        (("pool: MAX", "pool: STOCHASTIC"), "'pool1' .*STOCHASTIC"),
        (("num_output", "= ="), "line"),
    ],
)
def test_definitions_that_cannot_be_converted(
    tmp_path: Path, change: tuple[str, str], sentence: str
) -> None:
    definition = vgg_definition(300, 21, width=1 / 16)
    weights = random_weights(definition)
    with pytest.raises((ModelError, UsageError), match=sentence):
        imported(tmp_path, definition.replace(*change), weights)
    assert not (tmp_path / "out.onnx").exists()


def test_weights_alone_or_damaged_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    write_caffemodel(path, {"conv": [np.ones((2, 3))]})
    np.testing.assert_array_equal(read_weights(path)["conv"][0], np.ones((2, 3)))
    with pytest.raises(UsageError, match="prototxt"):
        import_model(path, tmp_path / "out.onnx")
    data = path.read_bytes()
    for cut in range(1, len(data)):
        path.write_bytes(data[:cut])
        try:
            read_weights(path)
        except ModelError:
            continue


def test_text_form_reads_every_notation() -> None:
    message = parse(
        'a: 1 a: -2.5e-1 # comment\n b { c: "x" "y" } b < c: \'z\\\'\' > d: [true, FALSE] e: MAX;'
    )
    assert message.numbers("a") == [1.0, -0.25]
    assert [part.text("c") for part in message.messages("b")] == ["xy", "z'"]
    assert message.flag("d", False)
    assert message.text("e") == "MAX"
