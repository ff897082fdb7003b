"""Caffe models compared with an independent forward pass of the published networks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from realtime_ssd_training.importers import ImportOptions, import_model
from realtime_ssd_training.importers.class_names import VOC_21
from torch import Tensor
from torch.nn import functional

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
from tests.training.importers.conftest import Floats, ImportedModel, assert_heads_close

DEFINITIONS = "mobilenet_ssd_caffe_definition"
ConvOptions = dict[str, int]


def imported(
    folder: Path, definition: str, weights: Weights, *, old: bool = False, family: str | None = None
) -> ImportedModel:
    (folder / "deploy.prototxt").write_text(definition)
    write_caffemodel(folder / "net.caffemodel", weights, old=old)
    options = ImportOptions(prototxt=folder / "deploy.prototxt", family=family, overwrite=True)
    result = import_model(folder / "net.caffemodel", folder / "out.onnx", options)
    assert result.dynamic_batch
    return ImportedModel(folder / "out.onnx")


def images(size: int, count: int = 1) -> Floats:
    rng = np.random.default_rng(7)
    return rng.uniform(-1, 1, (count, 3, size, size)).astype(np.float32)


class Forward:
    """The layers of a Caffe network, by name."""

    def __init__(self, weights: Weights) -> None:
        self.weights = {
            name: [torch.tensor(array, dtype=torch.float32) for array in arrays]
            for name, arrays in weights.items()
        }

    def conv(
        self, x: Tensor, name: str, *, stride: int = 1, padding: int = 0, dilation: int = 1
    ) -> Tensor:
        weight, bias = self.weights[name]
        return functional.conv2d(x, weight, bias, stride, padding, dilation)

    def relu(
        self, x: Tensor, name: str, *, stride: int = 1, padding: int = 0, dilation: int = 1
    ) -> Tensor:
        x = self.conv(x, name, stride=stride, padding=padding, dilation=dilation)
        return functional.relu(x)

    def rows(self, x: Tensor, name: str, columns: int, *, padding: int = 0) -> Tensor:
        head = self.conv(x, name, padding=padding)
        return head.permute(0, 2, 3, 1).reshape(len(x), -1, columns)

    def unit(self, x: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        """Return MobileNet's convolution, with BatchNorm and Scale if the definition has them."""
        weight, *biases = self.weights[name]
        bias = biases[0] if biases else None
        padding = weight.shape[-1] // 2
        x = functional.conv2d(x, weight, bias, stride=stride, padding=padding, groups=groups)
        if f"{name}/bn" in self.weights:
            mean, variance, count = self.weights[f"{name}/bn"]
            x = functional.batch_norm(x, mean / count, variance / count, eps=1e-5)
            factor, shift = self.weights[f"{name}/scale"]
            x = x * factor[:, None, None] + shift[:, None, None]
        return functional.relu(x)


def mobilenet(weights: Weights, batch: Floats) -> list[Floats]:
    net, x = Forward(weights), torch.from_numpy(batch)
    maps: dict[str, Tensor] = {}
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


def vgg(weights: Weights, batch: Floats, size: int, classes: int) -> list[Floats]:
    net, x = Forward(weights), torch.from_numpy(batch)
    maps: dict[str, Tensor] = {}
    for stage, count in enumerate((2, 2, 3, 3, 3), 1):
        for number in range(1, count + 1):
            x = net.relu(x, f"conv{stage}_{number}", padding=1)
        if stage == 4:
            length = (x.pow(2).sum(1, keepdim=True) + 1e-10).sqrt()
            factor = net.weights["conv4_3_norm"][0][:, None, None]
            maps["conv4_3_norm"] = x / length * factor
        pooled = functional.max_pool2d(x, 2, 2, ceil_mode=True)
        x = functional.max_pool2d(x, 3, 1, 1) if stage == 5 else pooled
    x = net.relu(x, "fc6", padding=6, dilation=6)
    x = maps["fc7"] = net.relu(x, "fc7")
    halving: ConvOptions = {"stride": 2, "padding": 1}
    plan = [halving, halving, {}, {}] if size == 300 else [*[halving] * 4, {"padding": 1}]
    for stage, options in enumerate(plan, 6):
        x = net.relu(net.relu(x, f"conv{stage}_1"), f"conv{stage}_2", **options)
        maps[f"conv{stage}_2"] = x
    names = [name for name, *_ in HEADS[size]]
    scores = [net.rows(maps[n], f"{n}_mbox_conf", classes, padding=1) for n in names]
    offsets = [net.rows(maps[n], f"{n}_mbox_loc", 4, padding=1) for n in names]
    return [torch.cat(scores, 1).numpy(), torch.cat(offsets, 1).numpy()]


@pytest.mark.parametrize("name", ["MobileNetSSD_deploy", "deploy"])
@torch.no_grad()
def test_mobilenet_equals_an_independent_forward_pass(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    definition = (shared_data / DEFINITIONS / f"{name}.prototxt").read_text()
    weights = random_weights(definition)
    model = imported(tmp_path, definition, weights)
    batch = images(300, 2)
    assert_heads_close(model.heads(batch), mobilenet(weights, batch))
    spec, limits = model.spec, model.spec.thresholds
    assert (spec.input.channels, spec.input.mean) == ("BGR", (127.5,) * 3)
    assert spec.input.scale == (0.007843,) * 3
    assert (limits.score_threshold, limits.iou_threshold) == (0.5, 0.45)
    assert limits.max_detections == 100
    golden = np.load(shared_data / "golden/priors_mobilenet_ssd_caffe_xyxy_f32.npy")
    np.testing.assert_allclose(to_corners(spec.boxes.boxes()), golden, atol=1e-6)


@pytest.mark.parametrize("name", ["MobileNetSSD_deploy", "deploy", "vgg300", "vgg512"])
def test_heads_and_detections_equal_opencv(
    tmp_path: Path, request: pytest.FixtureRequest, name: str
) -> None:
    """Compare with the stored results of OpenCV 4 for the same files (opencv_caffe.json)."""
    size = 512 if name == "vgg512" else 300
    if name.startswith("vgg"):
        definition = vgg_definition(size, 21 if size == 300 else 81, width=1 / 16)
        model = imported(tmp_path, definition, random_weights(definition))
        threshold = 0.01
    else:
        folder = request.getfixturevalue("shared_data") / DEFINITIONS
        definition = (folder / f"{name}.prototxt").read_text()
        model = imported(tmp_path, definition, sharpened(random_weights(definition)))
        threshold = 0.25
    expected = json.loads((Path(__file__).parent / "opencv_caffe.json").read_text())[name]
    scores, offsets = model.heads(images(size))
    for head, samples in ((scores, expected["scores"]), (offsets, expected["offsets"])):
        sampled = head.ravel()[:: head.size // 40]
        np.testing.assert_allclose(sampled, samples, rtol=1e-4, atol=1e-4)
    post_processor = PostProcessor(model.spec.with_thresholds(score_threshold=threshold))
    raw = post_processor(scores[0], offsets[0])
    detections = np.column_stack([raw.class_ids, raw.scores, raw.boxes])
    np.testing.assert_allclose(detections[:20], expected["detections"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "classes", "boxes"), [(300, 21, 8732), (512, 81, 24564)])
@torch.no_grad()
def test_vgg_equals_an_independent_forward_pass(
    tmp_path: Path, size: int, classes: int, boxes: int
) -> None:
    definition = vgg_definition(size, classes, width=1 / 16)
    weights = random_weights(definition)
    model = imported(tmp_path, definition, weights, old=size == 300)
    batch = images(size)
    assert_heads_close(model.heads(batch), vgg(weights, batch, size, classes))
    spec, limits = model.spec, model.spec.thresholds
    assert (spec.num_boxes, spec.num_classes, spec.activation) == (boxes, classes, "softmax")
    assert (spec.input.channels, spec.input.mean) == ("BGR", (104.0, 117.0, 123.0))
    assert spec.input.scale == (1.0,) * 3
    assert (spec.name, spec.background, spec.coding) == (f"VGG_SSD_{size}", 0, "xywh")
    assert (limits.pre_nms_top_k, limits.max_detections) == (400, 200)
    assert (limits.score_threshold, limits.iou_threshold) == (0.5, 0.45)
    assert spec.variances == (0.1, 0.1, 0.2, 0.2)
    assert spec.labels[-1] == {21: VOC_21[-1], 81: "toothbrush"}[classes]


def test_vgg_boxes_equal_those_of_the_original_layer(shared_data: Path, tmp_path: Path) -> None:
    definition = vgg_definition(300, 21, width=1 / 16)
    boxes = imported(tmp_path, definition, random_weights(definition)).spec.boxes.boxes()
    golden = np.load(shared_data / "golden/priors_ssd300_vgg16_voc_xyxy_f32.npy")
    np.testing.assert_allclose(to_corners(boxes), golden, atol=1e-6)


@pytest.mark.parametrize("size", [300, 512])
@pytest.mark.parametrize(("classes", "boxes"), [(21, "voc"), (81, "coco")])
def test_vgg_boxes_equal_those_of_our_network(
    tmp_path: Path, size: int, classes: int, boxes: str
) -> None:
    from realtime_ssd_training.models import create

    definition = vgg_definition(size, classes, width=1 / 16)
    spec = imported(tmp_path, definition, random_weights(definition)).spec
    ours = create(f"ssd{size}_vgg16", ["background", "a"], boxes=boxes).spec
    np.testing.assert_allclose(spec.boxes.boxes(), ours.boxes.boxes(), atol=1e-6)
    assert spec.input.mean == ours.input.mean
    assert len(spec.labels) == classes


@pytest.fixture(scope="module")
def thin() -> tuple[str, Weights]:
    """VGG300 with few channels, and weights for it."""
    definition = vgg_definition(300, 21, width=1 / 16)
    return definition, random_weights(definition)


def test_missing_superfluous_and_misshapen_weights_are_refused(
    tmp_path: Path, thin: tuple[str, Weights]
) -> None:
    definition, weights = thin
    fc7 = weights["fc7"]
    extra = {f"fc{number}": fc7 for number in range(8, 14)}
    cases: dict[str, Weights] = {
        r"'fc7' .*has no weights": {k: v for k, v in weights.items() if k != "fc7"},
        r"weights for fc8, which": {**weights, "fc8": fc7},
        r"weights for fc8, fc9, fc10, fc11, fc12 and more, which": {**weights, **extra},
        r"'fc7' .*expects weights of shapes": {**weights, "fc7": [fc7[0][:, :-1], fc7[1]]},
        r"'fc7' .*expects weights": {**weights, "fc7": [*fc7, fc7[1]]},
        r"'conv4_3_norm' .*shapes": {**weights, "conv4_3_norm": [np.ones(1)]},
    }
    for sentence, case in cases.items():
        with pytest.raises(ModelError, match=sentence):
            imported(tmp_path, definition, case)
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("CENTER_SIZE", "CORNER", "codes boxes as CORNER; only shared CENTER_SIZE"),
        ("share_location: true", "share_location: false", "only shared CENTER_SIZE"),
        ("DetectionOutput", "MultiBoxLoss", "no DetectionOutput layer, only Concat, Convolution,"),
        ("phase: TEST", "phase: TRAIN", "no DetectionOutput layer"),
        ('type: "Normalize"', 'type: "LRN"', r"'conv4_3_norm' \(LRN\) .*not supported"),
        ('bottom: "fc6"', 'bottom: "fc5"', "'relu_fc6' .*has the input 'fc5'"),
        ("dim: 300 }", "dim: 300", "cannot be parsed .*complete"),
        ("dim: 300 }", "dim: 0 }", "not 1×3×height×width"),
        ("dim: 3 ", "dim: 1 ", "not 1×3×height×width"),
        ("dim: 1 dim", "dim", "not 1×3×height×width"),
        ("pool: MAX", "pool: STOCHASTIC", r"'pool1' \(Pooling\) pools by STOCHASTIC"),
        ("num_output", "= =", "line 17 .*cannot be parsed"),
        ("stride: 2 }", "stride: 0 }", r"'pool1' \(Pooling\) has parameters that do not fit"),
        ("order: 3", "order: 7", r"'conv4_3_norm_mbox_loc_perm' \(Permute\) has parameters"),
        ('norm"\n  bottom: "data"', 'norm"', r"\(PriorBox\) has parameters that do not fit"),
        ("num_classes: 21", "num_classes: 22", "not divisible by 22 columns"),
        ("num_classes: 21", "", "not divisible by 0 columns"),
        ('  bottom: "mbox_priorbox"\n', "", "not offsets, scores and default boxes"),
        ('"mbox_priorbox"\n  top: "detection', '"fc7"\n  top: "detection', "PriorBox layers"),
    ],
)
def test_definitions_that_cannot_be_converted_are_refused(
    tmp_path: Path, thin: tuple[str, Weights], old: str, new: str, sentence: str
) -> None:
    definition, weights = thin
    changed = definition.replace(old, new)
    assert changed != definition
    with pytest.raises(ModelError, match=sentence):
        imported(tmp_path, changed, weights)
    assert not (tmp_path / "out.onnx").exists()


def test_unequal_variances_are_refused(tmp_path: Path, thin: tuple[str, Weights]) -> None:
    definition, weights = thin
    changed = definition.replace("variance: 0.1", "variance: 0.3", 1)
    with pytest.raises(ModelError, match="different variances"):
        imported(tmp_path, changed, weights)
    changed = definition.replace(" variance: 0.1 variance: 0.1", "")
    with pytest.raises(ModelError, match="have 2 variances, 1 or 4"):
        imported(tmp_path, changed, weights)


def test_the_input_can_be_a_layer_or_old_sizes(tmp_path: Path, thin: tuple[str, Weights]) -> None:
    definition, weights = thin
    field = 'input: "data"\ninput_shape { dim: 1 dim: 3 dim: 300 dim: 300 }\n'
    assert field in definition
    shape = "shape { dim: 1 dim: 3 dim: 260 dim: 320 }"
    layer = f'layer {{ name: "in" type: "Input" top: "data" input_param {{ {shape} }} }}\n'
    for replacement in (
        layer,
        'input: "data"\ninput_dim: 1\ninput_dim: 3\ninput_dim: 260\ninput_dim: 320\n',
    ):
        spec = imported(tmp_path, definition.replace(field, replacement), weights).spec
        assert (spec.input.height, spec.input.width) == (260, 320)


def test_layers_of_the_training_phase_are_skipped(
    tmp_path: Path, thin: tuple[str, Weights]
) -> None:
    definition, weights = thin
    loss = 'layer { name: "loss" type: "MultiBoxLoss" include { phase: TRAIN } bottom: "x" }\n'
    split = 'layer { name: "s" type: "Split" include { stage: "x" } bottom: "data" top: "y" }\n'
    model = imported(tmp_path, definition.replace("layer {", loss + split + "layer {", 1), weights)
    assert model.spec.num_boxes == 8732


def test_settings_of_the_post_processing_are_read(
    tmp_path: Path, thin: tuple[str, Weights]
) -> None:
    definition, weights = thin
    for old, new in (
        ("nms_threshold: 0.45 top_k: 400", "nms_threshold: 0.3"),
        ("keep_top_k: 200 confidence_threshold: 0.01", "confidence_threshold: 0.75"),
        ("background_label_id: 0", "background_label_id: 2 variance_encoded_in_target: true"),
        ("clip: false", "clip: true"),
        ('name: "VGG_SSD_300"\n', ""),
    ):
        assert old in definition
        definition = definition.replace(old, new, 1 if "clip" not in old else -1)
    spec = imported(tmp_path, definition, weights).spec
    limits = spec.thresholds
    assert (limits.score_threshold, limits.iou_threshold) == (0.75, 0.3)
    assert (limits.pre_nms_top_k, limits.max_detections) == (400, 200)
    assert (spec.background, spec.variances, spec.name) == (2, (1.0,) * 4, "caffe-vgg")
    assert spec.boxes.clip
    corners = to_corners(spec.boxes.boxes())
    assert (corners.min(), corners.max()) == (0, 1)


def test_layers_with_and_without_clipping_are_joined(
    tmp_path: Path, thin: tuple[str, Weights]
) -> None:
    definition, weights = thin
    plain = imported(tmp_path, definition, weights).spec.boxes.boxes()
    mixed = imported(tmp_path, definition.replace("clip: false", "clip: true", 1), weights)
    boxes = mixed.spec.boxes.boxes()
    first = 38 * 38 * 4
    np.testing.assert_allclose(boxes[first:], plain[first:], atol=1e-6)
    clipped = np.clip(to_corners(plain[:first]), 0, 1)
    np.testing.assert_allclose(to_corners(boxes[:first]), clipped, atol=1e-6)
    assert np.abs(boxes[:first] - plain[:first]).max() > 0.01


def test_an_unknown_family_must_be_named(tmp_path: Path, thin: tuple[str, Weights]) -> None:
    definition, weights = thin
    start = definition.index('layer {\n  name: "conv4_3_norm"\n')
    end = definition.index("layer {", start + 1)
    changed = (definition[:start] + definition[end:]).replace('"conv4_3_norm"', '"conv4_3"')
    weights = {name: arrays for name, arrays in weights.items() if name != "conv4_3_norm"}
    with pytest.raises(UsageError, match=r"`family`, .*caffe-vgg or caffe-mobilenet"):
        imported(tmp_path, changed, weights)
    with pytest.raises(UsageError, match="family 'vgg' is unknown"):
        imported(tmp_path, changed, weights, family="vgg")
    spec = imported(tmp_path, changed, weights, family="caffe-mobilenet").spec
    assert spec.input.mean == (127.5,) * 3


def test_weights_without_a_definition_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    write_caffemodel(path, {"conv": [np.ones((2, 3))]})
    with pytest.raises(UsageError, match=r"set `prototxt` to its network definition"):
        import_model(path, tmp_path / "out.onnx")
    for prototxt in (tmp_path / "absent.prototxt", path):
        options = ImportOptions(prototxt=prototxt)
        with pytest.raises((UsageError, ModelError), match="definition"):
            import_model(path, tmp_path / "out.onnx", options)
