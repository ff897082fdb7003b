"""Tables, numbers, links, code and figures of `docs/ssd.md` agree with the code."""

from __future__ import annotations

import re
from contextlib import redirect_stdout
from dataclasses import fields
from importlib import import_module
from io import StringIO
from itertools import pairwise
from math import exp, log, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from realtime_ssd_training.data.augment import AugmentationConfig, SSDAugmentation
from realtime_ssd_training.engine.loader import Target
from realtime_ssd_training.engine.loss import MultiBoxLoss, hard_negatives
from realtime_ssd_training.engine.matching import corners, encode, match, overlaps
from realtime_ssd_training.illustrate import worked_example
from realtime_ssd_training.illustrate.diagrams import MAPS
from realtime_ssd_training.illustrate.matching_statistics import (
    HEIGHTS,
    match_statistics,
    street_by_height,
)
from realtime_ssd_training.illustrate.street_figures import mine_frame
from realtime_ssd_training.models import create, ssd300_vgg16, ssd512_vgg16
from realtime_ssd_training.models.default_boxes import mobilenet_boxes
from realtime_ssd_training.recipe import LossConfig, load_recipe
from torch import Tensor
from torch.nn import functional

from realtime_ssd.core.boxes import iou
from realtime_ssd.core.postprocess import PostProcessor
from realtime_ssd.core.spec import InputSpec, Thresholds

PAGE_PATH = Path(__file__).resolve().parents[2] / "docs/ssd.md"
PAGE = PAGE_PATH.read_text(encoding="utf-8")
TEXT = " ".join(PAGE.split())
NAMES = ("background", "car", "person")


def table(name: str) -> list[list[str]]:
    """Return the cells of the table after the marker `name`, without its heading."""
    block = re.search(rf"<!-- table: {name} -->\n((?:\|.*\n)+)", PAGE)
    assert block, f"the page has no table '{name}'"
    rows = [
        [cell.strip() for cell in line.strip("|\n ").split("|")] for line in block[1].split("\n")
    ]
    return rows[2:-1]


def numbers(cell: str) -> list[float]:
    return [float(number) for number in cell.split(",")]


def assert_shown(shown: str, value: float) -> None:
    """Compare a number to the precision shown on the page."""
    digits = len(shown.partition(".")[2])
    assert float(shown) == pytest.approx(value, abs=0.51 * 10**-digits), (shown, value)


def assert_on_page(*fragments: str) -> None:
    for fragment in fragments:
        assert fragment in TEXT


# The worked example, computed from the values on the page.


def page_boxes() -> Tensor:
    return torch.tensor([numbers(row[1]) for row in table("iou")]) / 100


def page_target() -> Target:
    rows = table("objects")
    boxes = torch.tensor([numbers(row[1]) for row in rows]) / 100
    return Target(boxes, torch.tensor([int(row[2]) for row in rows]), torch.zeros(2).bool())


def page_heads() -> tuple[Tensor, Tensor]:
    scores = torch.tensor([numbers(row[1]) for row in table("classes")])
    offsets = torch.zeros(len(scores), 4)
    for row in table("localization"):
        offsets[int(row[0])] = torch.tensor(numbers(row[1]))
    return scores[None], offsets[None]


def page_loss() -> MultiBoxLoss:
    return MultiBoxLoss(worked_example.SPEC, page_boxes())


def test_example_on_the_page_equals_the_code() -> None:
    torch.testing.assert_close(page_boxes(), torch.from_numpy(worked_example.SPEC.boxes.boxes()))
    for shown, expected in zip(page_heads(), worked_example.heads(), strict=True):
        torch.testing.assert_close(shown, expected)
    torch.testing.assert_close(page_target().boxes, worked_example.target().boxes)
    assert [row[0] for row in table("objects")] == list(NAMES[1:])
    assert [int(row[0]) for row in table("iou")] == list(range(14))


def test_ious_and_matches() -> None:
    target, default_boxes = page_target(), page_boxes()
    ious, _ = overlaps(target.boxes, corners(default_boxes))
    labels = match(default_boxes, target.boxes, target.labels).labels
    for k, row in enumerate(table("iou")):
        assert_shown(row[2], ious[0, k].item())
        assert_shown(row[3], ious[1, k].item())
        assert row[4] == NAMES[int(labels[k])]


def test_offsets_and_smooth_l1() -> None:
    target, default_boxes = page_target(), page_boxes()
    objects = match(default_boxes, target.boxes, target.labels).objects
    rows = table("localization")
    assert [int(row[0]) for row in rows] == torch.nonzero(objects >= 0).flatten().tolist()
    for number, predicted, target_offsets, losses, total in rows:
        k = int(number)
        variances = torch.tensor(worked_example.SPEC.variances)
        expected = encode(target.boxes[objects[k]], default_boxes[k], variances)
        parts = functional.smooth_l1_loss(
            torch.tensor(numbers(predicted)), expected, reduction="none"
        )
        for shown, value in zip(target_offsets.split(", "), expected.tolist(), strict=True):
            assert_shown(shown, value)
        for shown, value in zip(losses.split(", "), parts.tolist(), strict=True):
            assert_shown(shown, value)
        assert_shown(total, parts.sum().item())
    for name, shown in zip(("cx", "cy", "w", "h"), rows[1][2].split(", "), strict=True):
        formula = re.search(rf"\$\\hat g\^\{{{name}\}} = .* = (-?[\d.]+)\$", PAGE)
        assert formula
        assert float(formula[1]) == float(shown)


def test_cross_entropy_and_hard_negatives() -> None:
    scores, _ = page_heads()
    labels, _ = page_loss().assign([page_target()])
    entropy = functional.cross_entropy(scores[0], labels[0], reduction="none")
    hard = hard_negatives(entropy[None], labels, 3.0)[0]
    for k, (_, _, label, probability, loss, role) in enumerate(table("classes")):
        assert label == NAMES[int(labels[0, k])]
        assert_shown(probability, torch.exp(-entropy[k]).item())
        assert_shown(loss, entropy[k].item())
        assert role == ("matched" if labels[0, k] > 0 else "hard" if hard[k] else "not used")


def test_loss() -> None:
    scores, offsets = page_heads()
    loss, targets = page_loss(), [page_target()]
    parts = loss.parts(scores, offsets, targets)
    labels, _ = loss.assign(targets)
    entropy = functional.cross_entropy(scores[0], labels[0], reduction="none")
    matched = entropy[labels[0] > 0].sum().item()
    values = [
        parts.matched.item(),
        matched,
        parts.scores.item() - matched,
        parts.scores.item(),
        parts.offsets.item(),
        loss(scores, offsets, targets).item(),
    ]
    for (_, shown), value in zip(table("loss"), values, strict=True):
        assert_shown(shown, value)
    variant = worked_example.solve(iou_threshold=0.35).parts.offsets.item()
    assert_on_page(f"grows from {parts.offsets.item():.3f} to {variant:.3f}.")


def test_postprocessing() -> None:
    scores, offsets = page_heads()
    post = PostProcessor(worked_example.SPEC)
    raw = post(scores[0].numpy(), offsets[0].numpy())
    boxes = post.decode(np.arange(14), offsets[0].numpy())
    probabilities = post.activate(scores[0].numpy())
    candidates = np.argwhere(probabilities[:, 1:] > worked_example.SPEC.thresholds.score_threshold)
    rows = table("candidates")
    assert sorted((int(row[0]), NAMES.index(row[1])) for row in rows) == [
        (row, column + 1) for row, column in candidates.tolist()
    ]
    for number, name, probability, box, result in rows:
        k = int(number)
        assert_shown(probability, float(probabilities[k, NAMES.index(name)]))
        for shown, value in zip(box.split(", "), boxes[k] * 100, strict=True):
            assert_shown(shown, float(value))
        assert (result == "kept") == (k in raw.box_indices)
        if result != "kept":
            dropped = re.fullmatch(r"dropped, IoU ([\d.]+) with box (\d+)", result)
            assert dropped
            assert_shown(dropped[1], float(iou(boxes[[k]], boxes[[int(dropped[2])]])[0, 0]))


def test_calculations_in_the_text() -> None:
    """The calculations around the tables are recomputed by plain arithmetic."""
    intersection, union = (52 - 4) * (39 - 12), 56 * 28 + 48 * 28 - (52 - 4) * (39 - 12)
    error = abs(-1.0 - log(16 / 28) / 0.2)
    assert_on_page(
        f"= {intersection} px²",
        f"{intersection} = {union}, and IoU = {intersection} / {union} = "
        f"{intersection / union:.3f}.",
        f"is {error:.3f}, above 1, so its loss is {error:.3f} − 0.5 = {error - 0.5:.3f} instead of",
        f"{error:.3f}² / 2 = {error**2 / 2:.3f}.",
        f"= {exp(2):.3f} / {exp(1) + exp(2) + 1:.3f} = {exp(2) / (exp(1) + exp(2) + 1):.3f}$",
        f"= {25 + 0.4 * 0.1 * 56:.2f}$ and $w = 56 e^{{-0.6 \\cdot 0.2}} = {56 * exp(-0.12):.2f}$",
        f"= {30 / sqrt(2):.1f}$ pixels. In a photo 1200 pixels wide that is "
        f"{30 / sqrt(2) * 4:.0f} pixels.",
        f"falls to {12 / 20:.2f}; a box of 64 pixels still has {60 / 68:.2f}.",
    )


# Models and program.


def test_feature_maps() -> None:
    layers = ssd300_vgg16.BOXES["voc"].layers
    *rows, (_, *_, total) = table("maps")
    assert [row[0] for row in rows] == list(MAPS)
    for (_, cells, step, smallest, count, boxes), layer in zip(rows, layers, strict=True):
        assert cells == f"{layer.rows} × {layer.columns}"
        assert_shown(step, layer.step_x * 300)
        assert_shown(smallest, layer.sizes[0][0] * 300)
        assert (int(count), int(boxes)) == (len(layer.sizes), layer.count)
    assert int(total) == sum(layer.count for layer in layers)
    names = [str(k) for k in range(21)]
    with torch.no_grad():
        heads = create("ssd300_vgg16", ["background", *names[1:]]).eval()(
            torch.zeros(1, 3, 300, 300)
        )
    assert [tuple(head.shape[1:]) for head in heads] == [(8732, 21), (8732, 4)]
    coco_side = ssd300_vgg16.BOXES["coco"].layers[0].sizes[0][0] * 300
    large = ssd512_vgg16.BOXES["voc"]
    assert len(large.layers) == 7
    assert_on_page(
        f"For COCO the first map starts at {coco_side:.0f} px. "
        f"SSD512 has seven maps and {large.count} default boxes."
    )


def test_hard_negative_mining_of_a_frame() -> None:
    mined = mine_frame()
    groups = (mined.matched, mined.hard, mined.easy)
    for (_, count, untrained, trained), rows in zip(table("mining"), groups, strict=True):
        assert int(count) == int(rows.sum())
        assert_shown(untrained, mined.untrained[rows].sum().item())
        # Rounding depends on the processor.
        assert float(trained) == pytest.approx(mined.entropy[rows].sum().item(), abs=0.2)
    negatives = mined.hard | mined.easy
    weight = mined.untrained[negatives].sum() / mined.untrained[mined.matched].sum()
    sizes = np.array([768, 448] * 2, np.float32)
    default = torch.from_numpy(mined.spec.boxes.boxes())
    objects = match(
        default, torch.from_numpy(mined.objects / sizes), torch.ones(len(mined.objects)).long()
    ).objects
    left = int(mined.objects[1:, 0].argsort()[1]) + 1  # the first is the car at the edge
    assert int((objects == left).sum()) == 1
    assert_on_page(
        f"and the {mined.spec.num_boxes} default boxes of the bundled model",
        f"Step 1 matches {int(mined.first.sum())} default boxes, one for each object.",
        f"Step 2 increases this to {int(mined.matched.sum())}.",
        f"{int(mined.matched.sum())} matched default boxes and {int(negatives.sum())} negatives.",
        f"each box is $\\ln {mined.spec.num_classes} = {log(mined.spec.num_classes):.3f}$",
        f"would have {weight:.0f} times the weight of the objects",
        f"The other {int(mined.easy.sum())} are already learned; "
        f"the highest cross-entropy among them is {mined.entropy[mined.easy].max():.3f}.",
    )


def test_thresholds_and_augmentation() -> None:
    assert {row[0].strip("`"): float(row[1]) for row in table("thresholds")} == {
        "score_threshold": Thresholds().score_threshold,
        "iou_threshold": Thresholds().iou_threshold,
        "pre_nms_top_k": Thresholds().pre_nms_top_k,
        "max_detections": Thresholds().max_detections,
    }
    augment = SSDAugmentation(InputSpec(300, 300))
    rows = {row[0].strip("`"): row[1] for row in table("augmentation")}
    assert set(rows) == {field.name for field in fields(AugmentationConfig)}
    for name, shown in rows.items():
        value = getattr(augment, name)
        assert shown == ", ".join(map(str, value if isinstance(value, tuple) else (value,)))


def test_recipe_on_the_page_holds_the_defaults(tmp_path: Path) -> None:
    shown = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert shown
    recipe = tmp_path / "mine.toml"
    recipe.write_text(f'{shown[1]}\n[model]\nname = "ssd300_vgg16"\n')
    assert load_recipe(str(recipe)).loss == LossConfig()


def test_matches_by_object_size() -> None:
    anchor_sets = (ssd300_vgg16.BOXES["voc"], ssd300_vgg16.BOXES["coco"], ssd512_vgg16.BOXES["voc"])
    for side, *shown in table("sizes"):
        for text, anchors in zip(shown, anchor_sets, strict=True):
            assert_shown(text, match_statistics(anchors, float(side) / 300).mean)
    for pixels, matched in ((21.1, False), (21.4, True)):
        statistics = match_statistics(anchor_sets[0], pixels / 300)
        assert (statistics.mean > 0) == matched
    assert match_statistics(anchor_sets[2], 14.7 / 300).mean == 0
    assert match_statistics(anchor_sets[2], 15 / 300).mean > 0


def test_street_by_object_height() -> None:
    bundled = mine_frame().spec.boxes
    anchor_sets = (
        ssd300_vgg16.BOXES["voc"],
        ssd300_vgg16.BOXES["coco"],
        mobilenet_boxes(),
        bundled,
    )
    rows = table("street")
    headings = [*(f"{low} to {high}" for low, high in pairwise(HEIGHTS)), "all"]
    headings[0], headings[-2] = f"below {HEIGHTS[1]}", f"from {HEIGHTS[-2]}"
    assert [row[0] for row in rows] == headings
    for (_, objects, *matched, detected), expected in zip(
        rows, street_by_height(anchor_sets), strict=True
    ):
        assert int(objects) == pytest.approx(expected.objects, abs=2)
        for text, value in zip(matched, expected.matched, strict=True):
            assert float(text) == pytest.approx(value, abs=0.02)
        assert float(detected) == pytest.approx(expected.detected, abs=0.04)


def test_average_precision_by_size(shared_data: Path, coco_model: Path) -> None:
    from realtime_ssd_training.data import open_dataset
    from realtime_ssd_training.evaluation.coco_metrics import coco_ap

    from realtime_ssd import Detector

    folder = shared_data / "coco_mini"
    with Detector(coco_model, score_threshold=0.02) as detector:
        name = f"coco:{folder}/instances.json:{folder}/JPEGImages"
        data = open_dataset(name, detector.spec.labels)
        detections = [detector(sample.image) for sample in data]
    ground_truth = [data.annotation(k) for k in range(len(data))]
    summary = coco_ap(ground_truth, detections, data.labels).summary
    shown = re.search(
        r"([\d.]+) for small objects .*? ([\d.]+) for medium ones, ([\d.]+) for", TEXT
    )
    assert shown
    for value, name in zip(shown.groups(), ("AP_small", "AP_medium", "AP_large"), strict=True):
        assert float(value) == pytest.approx(summary[name], abs=0.002)


# Links and code.


def test_linked_code_exists() -> None:
    links = re.findall(r"\]\((\.\./[^)]+)\)(?:: ((?:`\w+`(?:, )?)+))?", PAGE)
    assert len(links) > 15
    for path, names in links:
        file = (PAGE_PATH.parent / path).resolve()
        assert file.is_file(), path
        if names:
            module = (
                file.relative_to(PAGE_PATH.parents[1]).with_suffix("").as_posix().replace("/", ".")
            )
            for name in re.findall(r"\w+", names):
                assert hasattr(import_module(module), name), f"{path} has no {name}"
    assert (
        "MultiBoxLoss("
        in (
            PAGE_PATH.parents[1] / "training/realtime_ssd_training/engine/training_components.py"
        ).read_text()
    )


def test_code_prints_the_results_on_the_page() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    printed, namespace = StringIO(), dict[str, object]()
    with redirect_stdout(printed):
        for block in blocks:
            exec(compile(block, "docs/ssd.md", "exec"), namespace)  # noqa: S102
    expected = re.findall(r"^print\(.*\)  # (.*)$", "\n".join(blocks), re.MULTILINE)
    assert len(expected) > 5
    assert printed.getvalue().splitlines() == expected
