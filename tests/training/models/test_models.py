"""The networks: shapes, default boxes and parameter counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from realtime_ssd_training.models import create, names

from realtime_ssd.core.boxes import iou, to_corners
from realtime_ssd.core.errors import UsageError

LABELS_91 = ["background", *(f"c{k}" for k in range(90))]
MAPS = {
    "ssd300_vgg16": (38, 19, 10, 5, 3, 1),
    "ssd512_vgg16": (64, 32, 16, 8, 4, 2, 1),
    "ssd300_mobilenet_v1": (19, 10, 5, 3, 2, 1),
    "ssd300_mobilenet_v1_3x3": (19, 10, 5, 3, 2, 1),
    "ssd300_mobilenet_v2": (19, 10, 5, 3, 2, 1),
    "ssdlite320_mobilenet_v3_large": (20, 10, 5, 3, 2, 1),
}
BOXES = {
    "ssd300_vgg16": 8732,
    "ssd512_vgg16": 24564,
    "ssd300_mobilenet_v1": 1917,
    "ssd300_mobilenet_v1_3x3": 3000,
    "ssd300_mobilenet_v2": 3000,
    "ssdlite320_mobilenet_v3_large": 3234,
}


@pytest.mark.parametrize("name", names())
def test_heads_have_one_output_per_default_box(name: str) -> None:
    model = create(name, ["background", "a", "b"]).eval()
    size = model.spec.input
    with torch.no_grad():
        images = torch.zeros(1, 3, size.height, size.width)
        maps = model.backbone(images)
        scores, offsets = model(images)
    assert scores.shape == (1, model.spec.num_boxes, 3)
    assert offsets.shape == (1, model.spec.num_boxes, 4)
    sizes = [(layer.rows, layer.columns) for layer in model.spec.boxes.layers]
    assert [tuple(features.shape[2:]) for features in maps] == sizes
    if name in MAPS:
        assert tuple(features.shape[2] for features in maps) == MAPS[name]
        assert model.spec.num_boxes == BOXES[name]


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("ssd300_vgg16", {}, 35_641_826),
        ("ssdlite320_mobilenet_v3_large", {}, 3_440_060),
        ("ssdlite320_mobilenet_v3_large", {"reduced_tail": False}, 5_198_540),
    ],
)
def test_parameter_counts_equal_those_of_torchvision(
    name: str, options: dict[str, object], count: int
) -> None:
    model = create(name, LABELS_91, **options)
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize(("recipe", "first"), [("coco_clipped", 0.07), ("voc_clamped", 0.1)])
def test_default_boxes_equal_those_of_the_pytorch_models(recipe: str, first: float) -> None:
    """The last center of the 10 × 10 map is 1.3 % outside; only torchvision does not clamp it."""
    boxes = create("ssd300_vgg16", ["background", "a"], boxes=recipe).spec.boxes.boxes()
    np.testing.assert_allclose(boxes[0], [8 / 600, 8 / 600, first, first], atol=1e-7)
    assert boxes[:, 2:].max() == 1
    assert boxes[:, :2].max() == pytest.approx(9.5 * 32 / 300 if "clipped" in recipe else 1.0)
    if recipe == "coco_clipped":  # sums of the corners that torchvision 0.29 computes
        sums = [3857.96279862, 3857.96279862, 5029.93054712, 5029.93054712]
        np.testing.assert_allclose(to_corners(boxes).sum(0, dtype=np.float64), sums, atol=1e-3)


def test_default_boxes_equal_those_of_the_caffe_model(shared_data: Path) -> None:
    expected = np.load(shared_data / "golden/priors_ssd300_vgg16_voc_xyxy_f32.npy")
    model = create("ssd300_vgg16", ["background", "a"])
    boxes = to_corners(model.spec.boxes.boxes())
    np.testing.assert_allclose(boxes, expected, atol=2e-6)


@pytest.mark.parametrize("size", [(128, 128), (320, 320), (640, 384)])
def test_general_default_boxes_overlap_objects_of_every_size(size: tuple[int, int]) -> None:
    columns, rows = size
    options = {"width": 0.25, "columns": columns, "rows": rows, "boxes": "general"}
    boxes = create("ssd_mobilenet_v1_fpn", ["background", "a"], **options).spec.boxes.boxes()
    random = np.random.default_rng(0)
    short = min(size)
    sides = 24 * (short / 24) ** random.uniform(0, 1, 400)
    stretch = random.uniform(0.5, 2, 400) ** 0.5
    objects = np.stack([sides * stretch, sides / stretch], 1).clip(max=size)
    low = random.uniform(0, 1, (400, 2)) * (size - objects)
    best = iou(np.concatenate([low, low + objects], 1) / np.array(size * 2), to_corners(boxes)).max(
        1
    )
    assert (best >= 0.5).mean() > 0.96
    large = sides > 0.6 * short
    assert large.sum() > 20
    assert (best[large] >= 0.5).mean() > 0.97


def test_backbone_weights_have_he_and_head_weights_xavier_initialization() -> None:
    torch.manual_seed(0)
    model = create("ssd300_vgg16", ["background", "a"])
    convolution = model.get_parameter("backbone.low.21.weight")  # 512 x 512 x 3 x 3
    assert convolution.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    head = model.get_parameter("offset_heads.1.weight")  # 24 x 1024 x 3 x 3
    assert head.abs().max().item() == pytest.approx((6 / (9 * (1024 + 24))) ** 0.5, rel=0.01)
    for name, value in model.named_parameters():
        if name.endswith("bias"):
            assert not value.any(), name


def test_l2norm_has_an_initial_scale_of_20() -> None:
    norm = create("ssd300_vgg16", ["background", "a"]).get_submodule("backbone.norm")
    features = torch.randn(2, 512, 3, 3)
    norms = norm(features).norm(dim=1)
    torch.testing.assert_close(norms, torch.full_like(norms, 20.0))


def test_invalid_names_options_and_labels_are_rejected() -> None:
    with pytest.raises(UsageError, match="model 'ssd999' does not exist; choose from ssd300_mob"):
        create("ssd999", ["background", "a"])
    with pytest.raises(UsageError, match="has no default boxes 'big'; choose from voc, coco"):
        create("ssd300_vgg16", ["background", "a"], boxes="big")
    with pytest.raises(UsageError, match="has no option 'width'; the options are boxes"):
        create("ssd300_vgg16", ["background", "a"], width=2.0)
    with pytest.raises(UsageError, match="`labels` must be 'background' followed by"):
        create("ssd300_vgg16", ["a", "b"])
    with pytest.raises(UsageError, match="`labels` must be 'background' followed by"):
        create("ssd300_vgg16", ["background"])
    with pytest.raises(UsageError, match="`labels` must not contain a class twice"):
        create("ssd300_vgg16", ["background", "a", "a"])
    with pytest.raises(UsageError, match="`columns` and `rows` must be multiples of 32"):
        create("ssd_mobilenet_v1_fpn", ["background", "a"], rows=96)
    with pytest.raises(UsageError, match="`scales` must be seven increasing fractions"):
        create("ssd300_mobilenet_v1", ["background", "a"], scales=(0.1,) * 7)
    scales = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    with pytest.raises(UsageError, match="`scales` must be seven increasing fractions"):
        create("ssd300_mobilenet_v1", ["background", "a"], scales=scales)
