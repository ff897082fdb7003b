"""`docs/ssd.md` says what the code does: its tables, its numbers, its links and its pictures."""

from __future__ import annotations

import re
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from itertools import pairwise
from math import exp, log, sqrt
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from realtime_ssd_training.data.augment import SSDAugmentation
from realtime_ssd_training.engine.loader import Target
from realtime_ssd_training.engine.loss import MultiBoxLoss, hard_negatives
from realtime_ssd_training.engine.matching import corners, encode, match, overlaps
from realtime_ssd_training.illustrate import example
from realtime_ssd_training.illustrate.__main__ import main
from realtime_ssd_training.illustrate.diagrams import MAPS
from realtime_ssd_training.illustrate.measures import HEIGHTS, matched_by_size, street_by_height
from realtime_ssd_training.illustrate.pictures import PICTURES
from realtime_ssd_training.illustrate.street import mine
from realtime_ssd_training.models import create, ssd300_vgg16, ssd512_vgg16
from realtime_ssd_training.models.default_boxes import mobilenet_boxes
from realtime_ssd_training.recipe import LossConfig, load_recipe
from torch import Tensor
from torch.nn import functional

from realtime_ssd.core.boxes import iou
from realtime_ssd.core.postprocess import PostProcessor
from realtime_ssd.core.spec import InputSpec, Thresholds

FILE = Path(__file__).resolve().parents[2] / "docs/ssd.md"
PAGE = FILE.read_text(encoding="utf-8")
TEXT = " ".join(PAGE.split())
NAMES = ("background", "car", "person")


def table(name: str) -> list[list[str]]:
    """Read the rows of the table that follows a marker, without its heading."""
    found = re.search(rf"<!-- table: {name} -->\n((?:\|.*\n)+)", PAGE)
    assert found, f"the page has no table '{name}'"
    rows = [
        [cell.strip() for cell in line.strip("|\n ").split("|")] for line in found[1].split("\n")
    ]
    return rows[2:-1]


def numbers(cell: str) -> list[float]:
    return [float(word) for word in cell.split(",")]


def same(shown: str, value: float) -> None:
    """Compare a number with as many digits as the page shows."""
    digits = len(shown.partition(".")[2])
    assert float(shown) == pytest.approx(value, abs=0.51 * 10**-digits), (shown, value)


def say(*sentences: str) -> None:
    for sentence in sentences:
        assert sentence in TEXT


# The worked example, computed from what the page itself gives.


def page_boxes() -> Tensor:
    return torch.tensor([numbers(row[1]) for row in table("iou")]) / 100


def page_target() -> Target:
    rows = table("objects")
    boxes = torch.tensor([numbers(row[1]) for row in rows]) / 100
    return Target(boxes, torch.tensor([int(row[2]) for row in rows]), torch.zeros(2).bool())


def page_heads() -> tuple[Tensor, Tensor]:
    scores = torch.tensor([numbers(row[1]) for row in table("classes")])
    offsets = torch.zeros(len(scores), 4)
    for row in table("places"):
        offsets[int(row[0])] = torch.tensor(numbers(row[1]))
    return scores[None], offsets[None]


def page_loss() -> MultiBoxLoss:
    return MultiBoxLoss(example.SPEC, page_boxes())


def test_the_example_is_that_of_the_code() -> None:
    torch.testing.assert_close(page_boxes(), torch.from_numpy(example.SPEC.boxes.boxes()))
    for shown, kept in zip(page_heads(), example.heads(), strict=True):
        torch.testing.assert_close(shown, kept)
    torch.testing.assert_close(page_target().boxes, example.target().boxes)
    assert [row[0] for row in table("objects")] == list(NAMES[1:])
    assert [int(row[0]) for row in table("iou")] == list(range(14))


def test_overlaps_and_matches() -> None:
    target, default_boxes = page_target(), page_boxes()
    found, _ = overlaps(target.boxes, corners(default_boxes))
    labels = match(default_boxes, target.boxes, target.labels).labels
    for k, row in enumerate(table("iou")):
        same(row[2], found[0, k].item())
        same(row[3], found[1, k].item())
        assert row[4] == NAMES[int(labels[k])]


def test_offsets_and_smooth_l1() -> None:
    target, default_boxes = page_target(), page_boxes()
    owner = match(default_boxes, target.boxes, target.labels).objects
    rows = table("places")
    assert [int(row[0]) for row in rows] == torch.nonzero(owner >= 0).flatten().tolist()
    for number, given, wanted, costs, total in rows:
        k = int(number)
        variances = torch.tensor(example.SPEC.variances)
        right = encode(target.boxes[owner[k]], default_boxes[k], variances)
        parts = functional.smooth_l1_loss(torch.tensor(numbers(given)), right, reduction="none")
        for shown, value in zip(wanted.split(", "), right.tolist(), strict=True):
            same(shown, value)
        for shown, value in zip(costs.split(", "), parts.tolist(), strict=True):
            same(shown, value)
        same(total, parts.sum().item())
    for name, shown in zip(("cx", "cy", "w", "h"), rows[1][2].split(", "), strict=True):
        by_hand = re.search(rf"\$\\hat g\^\{{{name}\}} = .* = (-?[\d.]+)\$", PAGE)
        assert by_hand
        assert float(by_hand[1]) == float(shown)


def test_cross_entropy_and_hard_negatives() -> None:
    scores, _ = page_heads()
    labels, _ = page_loss().assign([page_target()])
    entropy = functional.cross_entropy(scores[0], labels[0], reduction="none")
    hard = hard_negatives(entropy[None], labels, 3.0)[0]
    for k, (_, _, wanted, probability, cost, role) in enumerate(table("classes")):
        assert wanted == NAMES[int(labels[0, k])]
        same(probability, torch.exp(-entropy[k]).item())
        same(cost, entropy[k].item())
        assert role == ("matched" if labels[0, k] > 0 else "hard" if hard[k] else "left out")


def test_the_loss() -> None:
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
        same(shown, value)
    grown = example.solve(iou_threshold=0.35).parts.offsets.item()
    say(f"grows from {parts.offsets.item():.3f} to {grown:.3f}.")


def test_candidates() -> None:
    scores, offsets = page_heads()
    post = PostProcessor(example.SPEC)
    found = post(scores[0].numpy(), offsets[0].numpy())
    boxes = post.decode(np.arange(14), offsets[0].numpy())
    share = post.activate(scores[0].numpy())
    passed = np.argwhere(share[:, 1:] > example.SPEC.thresholds.score_threshold)
    rows = table("candidates")
    assert sorted((int(row[0]), NAMES.index(row[1])) for row in rows) == [
        (row, column + 1) for row, column in passed.tolist()
    ]
    for number, name, probability, box, fate in rows:
        k = int(number)
        same(probability, float(share[k, NAMES.index(name)]))
        for shown, value in zip(box.split(", "), boxes[k] * 100, strict=True):
            same(shown, float(value))
        assert (fate == "kept") == (k in found.box_indices)
        if fate != "kept":
            overlap, better = re.fullmatch(r"dropped, IoU ([\d.]+) with box (\d+)", fate).groups()
            same(overlap, float(iou(boxes[[k]], boxes[[int(better)]])[0, 0]))


def test_steps_by_hand() -> None:
    """The sentences around the tables, computed with nothing but arithmetic."""
    overlap, union = (52 - 4) * (39 - 12), 56 * 28 + 48 * 28 - (52 - 4) * (39 - 12)
    wide = abs(-1.0 - log(16 / 28) / 0.2)
    say(
        f"= {overlap} px²",
        f"{overlap} = {union}, and IoU = {overlap} / {union} = {overlap / union:.3f}.",
        f"off by {wide:.3f}, beyond 1, so it costs {wide:.3f} − 0.5 = {wide - 0.5:.3f} instead of",
        f"{wide:.3f}² / 2 = {wide**2 / 2:.3f}.",
        f"= {exp(2):.3f} / {exp(1) + exp(2) + 1:.3f} = {exp(2) / (exp(1) + exp(2) + 1):.3f}$",
        f"= {25 + 0.4 * 0.1 * 56:.2f}$ and $w = 56 e^{{-0.6 \\cdot 0.2}} = {56 * exp(-0.12):.2f}$",
        f"= {30 / sqrt(2):.1f}$ pixels on. In a photo 1200 pixels wide that is "
        f"{30 / sqrt(2) * 4:.0f} pixels.",
        f"falls to {12 / 20:.2f}; a box of 64 pixels still has {60 / 68:.2f}.",
    )


# What the page tells of the models and the program.


def test_maps() -> None:
    layers = ssd300_vgg16.BOXES["voc"].layers
    *rows, (_, *_, total) = table("maps")
    assert [row[0] for row in rows] == list(MAPS)
    for (_, cells, step, smallest, count, boxes), layer in zip(rows, layers, strict=True):
        assert cells == f"{layer.rows} × {layer.columns}"
        same(step, layer.step_x * 300)
        same(smallest, layer.sizes[0][0] * 300)
        assert (int(count), int(boxes)) == (len(layer.sizes), layer.count)
    assert int(total) == sum(layer.count for layer in layers)
    names = [str(k) for k in range(21)]
    with torch.no_grad():
        heads = create("ssd300_vgg16", ["background", *names[1:]]).eval()(
            torch.zeros(1, 3, 300, 300)
        )
    assert [tuple(head.shape[1:]) for head in heads] == [(8732, 21), (8732, 4)]
    smallest = ssd300_vgg16.BOXES["coco"].layers[0].sizes[0][0] * 300
    large = ssd512_vgg16.BOXES["voc"]
    say(
        f"For COCO the first map starts at {smallest:.0f} px. "
        f"SSD512 has {('seven',)[len(large.layers) - 7]} maps and {large.count} default boxes."
    )


def test_a_mined_frame() -> None:
    mined = mine()
    groups = (mined.matched, mined.hard, mined.easy)
    for (_, count, untrained, trained), rows in zip(table("mining"), groups, strict=True):
        assert int(count) == int(rows.sum())
        same(untrained, mined.untrained[rows].sum().item())
        # Another processor may round the network's sums otherwise.
        assert float(trained) == pytest.approx(mined.entropy[rows].sum().item(), abs=0.2)
    negatives = mined.hard | mined.easy
    weight = mined.untrained[negatives].sum() / mined.untrained[mined.matched].sum()
    sizes = np.array([768, 448] * 2, np.float32)
    default = torch.from_numpy(mined.spec.boxes.boxes())
    owner = match(
        default, torch.from_numpy(mined.objects / sizes), torch.ones(len(mined.objects)).long()
    ).objects
    left = int(mined.objects[1:, 0].argsort()[1]) + 1  # the car at the edge comes first
    assert int((owner == left).sum()) == 1
    say(
        f"and the {mined.spec.num_boxes} default boxes of the bundled model",
        f"Step 1 matches {int(mined.first.sum())} default boxes, one for each object.",
        f"Step 2 makes it {int(mined.matched.sum())}.",
        f"{int(mined.matched.sum())} matched default boxes and {int(negatives.sum())} negatives.",
        f"each box costs $\\ln {mined.spec.num_classes} = {log(mined.spec.num_classes):.3f}$",
        f"would weigh {weight:.0f} times as much",
        f"The other {int(mined.easy.sum())} are long learned; the worst of them costs "
        f"{mined.entropy[mined.easy].max():.3f}.",
    )


def test_thresholds_and_augmentation() -> None:
    assert {row[0].strip("`"): float(row[1]) for row in table("thresholds")} == {
        "score": Thresholds().score_threshold,
        "nms": Thresholds().iou_threshold,
        "top_k": Thresholds().pre_nms_top_k,
        "keep": Thresholds().max_detections,
    }
    augment = SSDAugmentation(InputSpec(300, 300))
    rows = {row[0].strip("`"): row[1] for row in table("augmentation")}
    assert set(rows) == set(SSDAugmentation.__slots__) - {"spec"}
    for name, shown in rows.items():
        value = getattr(augment, name)
        assert shown == ", ".join(map(str, value if isinstance(value, tuple) else (value,)))


def test_the_recipe(tmp_path: Path) -> None:
    shown = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert shown
    recipe = tmp_path / "mine.toml"
    recipe.write_text(f'{shown[1]}\n[model]\nname = "ssd300_vgg16"\n')
    assert load_recipe(str(recipe)).loss == LossConfig()


def test_sizes_of_objects() -> None:
    recipes = (ssd300_vgg16.BOXES["voc"], ssd300_vgg16.BOXES["coco"], ssd512_vgg16.BOXES["voc"])
    for side, *shown in table("sizes"):
        for text, recipe in zip(shown, recipes, strict=True):
            same(text, matched_by_size(recipe, float(side) / 300).mean)
    for side, reached in ((21.1, False), (21.4, True)):
        found = matched_by_size(recipes[0], side / 300)
        assert (found.mean > 0) == reached
    assert matched_by_size(recipes[2], 14.7 / 300).mean == 0
    assert matched_by_size(recipes[2], 15 / 300).mean > 0


def test_the_street() -> None:
    bundled = mine().spec.boxes
    recipes = (ssd300_vgg16.BOXES["voc"], ssd300_vgg16.BOXES["coco"], mobilenet_boxes(), bundled)
    rows = table("street")
    heads = [*(f"{low} to {high}" for low, high in pairwise(HEIGHTS)), "all"]
    heads[0], heads[-2] = f"below {HEIGHTS[1]}", f"from {HEIGHTS[-2]}"
    assert [row[0] for row in rows] == heads
    for (_, objects, *shown, found), fact in zip(rows, street_by_height(recipes), strict=True):
        assert int(objects) == pytest.approx(fact.objects, abs=2)
        for text, value in zip(shown, fact.reached, strict=True):
            assert float(text) == pytest.approx(value, abs=0.02)
        assert float(found) == pytest.approx(fact.found, abs=0.04)


def test_average_precision_by_size(shared_data: Path, coco_model: Path) -> None:
    from realtime_ssd_training.data import open_dataset
    from realtime_ssd_training.evaluation.coco_metrics import coco_ap

    from realtime_ssd import Detector

    folder = shared_data / "coco_mini"
    with Detector(coco_model, score_threshold=0.02) as detector:
        name = f"coco:{folder}/instances.json:{folder}/JPEGImages"
        data = open_dataset(name, detector.spec.labels)
        answers = [detector(sample.image) for sample in data]
    found = coco_ap([data.annotation(k) for k in range(len(data))], answers, data.labels).summary
    shown = re.search(
        r"([\d.]+) for small objects .*? ([\d.]+) for medium ones, ([\d.]+) for", TEXT
    )
    assert shown
    for value, name in zip(shown.groups(), ("AP_small", "AP_medium", "AP_large"), strict=True):
        assert float(value) == pytest.approx(found[name], abs=0.002)


# Links, pictures and programs.


def test_code_is_where_the_page_says() -> None:
    links = re.findall(r"\]\((\.\./[^)]+)\)(?:: ((?:`\w+`(?:, )?)+))?", PAGE)
    assert len(links) > 15
    for path, names in links:
        file = (FILE.parent / path).resolve()
        assert file.is_file(), path
        if names:
            module = file.relative_to(FILE.parents[1]).with_suffix("").as_posix().replace("/", ".")
            for name in re.findall(r"\w+", names):
                assert hasattr(import_module(module), name), f"{path} has no {name}"
    assert (
        "MultiBoxLoss("
        in (
            FILE.parents[1] / "training/realtime_ssd_training/engine/training_components.py"
        ).read_text()
    )


def test_programs_print_what_the_page_says() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    printed, space = StringIO(), dict[str, object]()
    with redirect_stdout(printed):
        for block in blocks:
            exec(compile(block, "docs/ssd.md", "exec"), space)  # noqa: S102
    wanted = re.findall(r"^print\(.*\)  # (.*)$", "\n".join(blocks), re.MULTILINE)
    assert len(wanted) > 5
    assert printed.getvalue().splitlines() == wanted


def test_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = re.findall(r"!\[[^\]]+\]\((images/[^)]+)\)", PAGE)
    assert sorted(shown) == sorted(f"images/{name}.png" for name in PICTURES)
    sizes = [(FILE.parent / path).stat().st_size for path in shown]
    assert max(sizes) < 150_000
    assert sum(sizes) < 600_000
    assert main([str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(PICTURES)
    for path in shown:
        kept, fresh = (
            cv2.imread(str(file)) for file in (FILE.parent / path, tmp_path / Path(path).name)
        )
        # Another matplotlib may move a line by a pixel, but draws the same picture.
        assert np.abs(np.subtract(kept.shape, fresh.shape)).max() <= 0.02 * max(kept.shape)
        small = [
            cv2.resize(each, (160, 80), interpolation=cv2.INTER_AREA) for each in (kept, fresh)
        ]
        assert np.abs(np.subtract(*small, dtype=float)).mean() < 6, f"{path} is out of date"


def test_pictures_are_the_same_every_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        assert main([str(tmp_path / name), "--only", "ssd_losses", "ssd_example"]) == 0
    for picture in ("ssd_losses.png", "ssd_example.png"):
        assert (tmp_path / "a" / picture).read_bytes() == (tmp_path / "b" / picture).read_bytes()


def test_pictures_cannot_go_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    (tmp_path / "ssd_losses.png").mkdir()
    assert main([str(tmp_path), "--only", "ssd_losses"]) == 2
    assert "cannot be written" in capsys.readouterr().err
