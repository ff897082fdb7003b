"""One path for every kind of model, and what is said about its mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from realtime_ssd_training.data import Annotation, open_dataset
from realtime_ssd_training.engine.checkpoint import save_checkpoint
from realtime_ssd_training.evaluation.error_sheet import describe, write_error_sheet
from realtime_ssd_training.evaluation.evaluate import Evaluation, evaluate, match_labels, open_model
from realtime_ssd_training.evaluation.metrics import ClassScore, Score, pair
from realtime_ssd_training.evaluation.mistakes import KINDS, find_mistakes
from realtime_ssd_training.evaluation.plots import TOGETHER, draw_curves
from realtime_ssd_training.evaluation.report_folder import FILES, check_free, write_report
from realtime_ssd_training.export import export_onnx

from realtime_ssd.backends import open_backend
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import RealtimeSSDError, UsageError
from tests.tiny import tiny_spec
from tests.training.bright import write_bright_set
from tests.training.evaluation.test_metrics import A, B, C, found, scenes, truth
from tests.training.test_export import LABELS, STREET, street_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same network as a checkpoint and as an ONNX file."""
    folder, model = tmp_path_factory.mktemp("models"), street_model()
    checkpoint, onnx = folder / "best.safetensors", folder / "model.onnx"
    save_checkpoint(checkpoint, model)
    export_onnx(model, onnx, photos=STREET)
    return checkpoint, onnx


@pytest.fixture(scope="module")
def data(models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Images in which objects are where the network finds some, and elsewhere."""
    folder, random = tmp_path_factory.mktemp("data"), np.random.default_rng(4)
    images, annotations = [], []
    with open_dataset_model(models[0]) as backend:
        for number in range(1, 12):
            image = np.roll(STREET[number % 3], 25 * number, axis=1)
            cv2.imwrite(str(folder / f"{number}.png"), image)
            images.append({"id": number, "file_name": f"{number}.png", "width": 320, "height": 180})
            for box, label in objects(backend, image, random):
                bbox = [*box[:2], box[2] - box[0], box[3] - box[1]]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": label,
                        "bbox": bbox,
                        "area": bbox[2] * bbox[3],
                        "iscrowd": 0,
                    }
                )
    categories = [{"id": k, "name": LABELS[k]} for k in (1, 2)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "all.json").write_text(json.dumps(content))
    return f"coco:{folder / 'all.json'}:{folder}"


def open_dataset_model(path: Path, batch: int = 1):  # type: ignore[no-untyped-def]
    return open_model(path, batch=batch, score=0.3)


def objects(backend, image: np.ndarray, random: np.random.Generator):  # type: ignore[no-untyped-def]
    """Take some detections, moved a little."""
    from realtime_ssd.core.frames import Frame

    (answer,) = backend.collect(backend.submit([Frame(image)]))
    for row in range(0, min(len(answer), 24), 3):
        box = np.clip(answer.boxes[row] + random.normal(0, 2, 4), 0, [320, 180, 320, 180])
        if (box[2:] - box[:2] > 4).all():
            yield box.tolist(), int(answer.class_ids[row])


def scored(path: Path, data: str, metric: str = "coco", batch: int = 1) -> Evaluation:
    with open_dataset_model(path, batch) as backend:
        return evaluate(backend, open_dataset(data), metric)  # type: ignore[arg-type]


@pytest.mark.parametrize("metric", ["coco", "voc07", "voc"])
def test_checkpoint_and_onnx_file_score_alike_in_every_batch(
    models: tuple[Path, Path], data: str, metric: str
) -> None:
    first = scored(models[0], data, metric)
    assert (first.backend, first.unknown) == ("torch", ())
    assert 0.1 < first.score.mean < 0.9
    assert all(item.objects > 8 for item in first.score.classes)
    for path, batch in ((models[0], 8), (models[1], 1), (models[1], 8)):
        other = scored(path, data, metric, batch)
        assert other.backend == ("torch" if path is models[0] else "onnxruntime")
        # Rounding may carry a single box over one of COCO's ten IoUs or over the score threshold.
        assert other.score.summary == pytest.approx(first.score.summary, abs=1e-3, nan_ok=True)
        assert other.mistakes.counts == pytest.approx(first.mistakes.counts, abs=2)
        found, wanted = (sum(map(len, one.answers)) for one in (other, first))
        assert found == pytest.approx(wanted, rel=0.01)


def test_real_model_in_batches(tmp_path: Path) -> None:
    from realtime_ssd.zoo import BUNDLED

    results = []
    for batch in (1, 8):
        with open_model(BUNDLED, batch=batch) as backend:
            assert backend.max_batch == batch
            results.append(evaluate(backend, open_dataset("demo:900-901")).to_dict())
    assert results[0]["AP"] > 0.5
    assert results[0]["score_threshold"] == 0.02
    assert results[1]["per_class"] == pytest.approx(results[0]["per_class"], abs=1e-6)


def test_every_kind_of_mistake_once(tiny: Path, tmp_path: Path) -> None:
    dataset = open_dataset(f"coco:{write_bright_set(tmp_path / 'data')}")
    with open_model(tiny) as backend:
        result = evaluate(backend, dataset, "voc")
    assert result.unknown == ("dark",)
    assert [item.label for item in result.score.classes] == ["bright"]
    wrong = result.mistakes
    assert wrong.counts == {
        "background": 1, "wrong class": 1, "poor box": 1, "duplicate": 0, "missed": 1
    }  # fmt: skip
    assert (wrong.hits, wrong.objects) == (3, 5)
    told = {item.kind: (item.name, describe(item, dataset.labels)) for item in wrong.worst}
    assert told["background"] == ("3.png", "bright 1.00")
    assert told["wrong class"] == ("4.png", "bright 1.00\nis dark, IoU 1.00")
    assert told["poor box"] == ("5.png", "bright 1.00\nIoU 0.33")
    assert told["missed"] == ("6.png", "bright\nnothing near")
    values = result.to_dict()
    assert values["errors"]["missed"] == 1
    assert values["sizes"]["small"] == {"objects": 0, "mAP": None}
    assert values["sizes"]["medium"]["objects"] == 5
    assert sorted(values["per_class"]) == ["bright"]


def test_duplicates_crowds_and_difficult_objects() -> None:
    image = truth([A, B, C], crowd=[1], difficult=[2])
    inside = (22.0, 2.0, 26.0, 6.0)  # in the crowd, of which it covers 16 %
    answer = found([(0.9, A), (0.8, A), (0.7, inside), (0.6, C), (0.5, (60, 60, 70, 70))])
    wrong = find_mistakes([image], [answer], {1, 2}, score=0.0)
    assert [(item.kind, round(item.score, 1)) for item in wrong.worst] == [
        ("duplicate", 0.8),
        ("background", 0.5),
    ]
    assert (wrong.hits, wrong.objects) == (1, 1)


def test_the_score_of_the_best_f1_decides_what_is_missed() -> None:
    image = truth([A, B, C])
    answer = found([(0.9, A), (0.8, B), (0.3, (60, 60, 70, 70)), (0.2, C)])
    best = find_mistakes([image], [answer], {1})
    # F1 from 0.9 on: 1/2; from 0.8: 4/5; from 0.3: 2/3; from 0.2: 6/7.
    assert best.score == pytest.approx(0.2)
    assert best.counts["background"] == 1
    strict = find_mistakes([image], [answer], {1}, score=0.5)
    assert [item.kind for item in strict.worst] == ["missed"]
    assert strict.worst[0].overlap == 1.0
    assert describe(strict.worst[0], ("background", "cat")) == "cat\nnearest: cat 0.20, IoU 1.00"
    assert strict.found.tolist() == [True, True, False]
    nothing = find_mistakes([image], [Detections.empty()], {1})
    assert (nothing.score, nothing.hits, nothing.counts["missed"]) == (0.0, 0, 3)


def test_missed_objects_come_largest_first_and_errors_most_confident_first() -> None:
    image = truth([A, (100, 100, 200, 200), B], [1, 1, 2])
    answer = found([(0.6, (300, 300, 310, 310)), (0.9, (320, 300, 330, 310))])
    wrong = find_mistakes([image], [answer], {1, 2}, score=0.0)
    assert [round(item.score, 1) for item in wrong.of("background", 5)] == [0.9, 0.6]
    sides = [item.truth.box[2] - item.truth.box[0] for item in wrong.of("missed", 5) if item.truth]
    assert sides == [100, 10, 10]
    assert len(wrong.of("missed", 2)) == 2
    only_cats = find_mistakes([image], [answer], {1}, score=0.0)
    assert only_cats.counts["missed"] == 2


@settings(max_examples=100, deadline=None)
@given(scenes())
def test_hits_are_those_of_the_metric(scene: tuple[list[Annotation], list[Detections]]) -> None:
    wrong = find_mistakes(*scene, {1, 2}, score=0.0)
    hits, wanted = 0, 0
    for class_id in (1, 2):
        right, _, objects = pair(*scene, class_id).judge()
        hits, wanted = hits + int(right.sum()), wanted + objects
    assert (wrong.hits, wrong.objects) == (hits, wanted)
    explained = wrong.hits + wrong.counts["missed"]
    assert explained <= wanted
    assert wanted - explained <= wrong.counts["wrong class"] + wrong.counts["poor box"]


def test_report(tiny: Path, tmp_path: Path) -> None:
    dataset = open_dataset(f"coco:{write_bright_set(tmp_path / 'data')}")
    with open_model(tiny) as backend:
        result = evaluate(backend, dataset)
    folder = tmp_path / "new" / "report"
    check_free(None, folder, overwrite=False)
    write_report(folder, result)
    assert sorted(item.name for item in folder.iterdir()) == sorted(FILES)
    values = json.loads((folder / "evaluation.json").read_text())
    assert values["AP50"] == pytest.approx(result.score.summary["AP50"], abs=1e-6)
    assert [item["kind"] for item in values["worst"]] == [k for k in KINDS if k != "duplicate"]
    assert values["worst"][1]["object"] == {"label": "dark", "box": [40.0, 60.0, 80.0, 90.0]}
    for name in FILES[1:]:
        picture = cv2.imread(str(folder / name))
        assert min(picture.shape[:2]) > 400
        assert picture.std() > 10
    with pytest.raises(UsageError, match=r"evaluation\.json' exists; add --overwrite"):
        check_free(None, folder, overwrite=False)
    check_free(None, folder, overwrite=True)
    with pytest.raises(UsageError, match="is a file; give the name of a folder"):
        check_free(None, folder / "evaluation.json", overwrite=True)


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_images_that_can_no_longer_be_read_are_left_out(
    tiny: Path, tmp_path: Path, batch: int
) -> None:
    dataset = open_dataset(f"coco:{write_bright_set(tmp_path / 'data')}")
    without = open_dataset(f"coco:{write_bright_set(tmp_path / 'fewer', skip=(1, 6))}")
    (tmp_path / "data" / "1.png").unlink()
    (tmp_path / "data" / "6.png").write_bytes(b"no picture")
    with open_model(tiny, batch=batch) as backend:
        result, wanted = (evaluate(backend, data, "voc") for data in (dataset, without))
    assert result.to_dict() == wanted.to_dict()
    assert [problem.file for problem in result.data.problems] == ["1.png", "6.png"]
    assert all(problem.text.endswith("; it was skipped") for problem in result.data.problems)
    assert [result.data.image_id(k) for k in range(len(result.data))] == [2, 3, 4, 5]
    write_report(tmp_path / "data", result)
    for path in (tmp_path / "data").glob("*.png"):
        path.unlink()
    with (
        open_model(tiny, batch=batch) as backend,
        pytest.raises(RealtimeSSDError, match=r"no image of '.*' can be read; the first: 1\.png"),
    ):
        evaluate(backend, dataset)


def test_the_sheet_shows_box_and_object_in_the_crop(tiny: Path, tmp_path: Path) -> None:
    from realtime_ssd_training.evaluation.error_sheet import HEIGHT, WIDTH, _tile

    dataset = open_dataset(f"coco:{write_bright_set(tmp_path / 'data')}")
    with open_model(tiny) as backend:
        wrong = evaluate(backend, dataset).mistakes
    (poor,) = wrong.of("poor box", 1)
    tile = _tile(poor, dataset).astype(int)
    assert tile.shape == (HEIGHT, WIDTH, 3)
    blue, green, red = np.moveaxis(tile, 2, 0)
    seen_red = np.argwhere((red > 180) & (green < 120) & (blue < 120))
    seen_green = np.argwhere((green > 150) & (red < 120) & (blue < 120))
    # The object lies to the left of the detection, by half a cell.
    assert seen_green[:, 1].min() < seen_red[:, 1].min() - 20
    assert seen_green[:, 1].max() < seen_red[:, 1].max() - 20
    sheet = tmp_path / "none.png"
    write_error_sheet(sheet, find_mistakes([], [], {1}), dataset, "nothing wrong $1$ <b>")
    assert cv2.imread(str(sheet)) is not None


def curve(label: str, hits: int) -> ClassScore:
    recall = np.linspace(0.1, 0.1 * hits, hits)
    falling = np.linspace(1.0, 0.5, hits)
    return ClassScore(label, 10, {"AP": 0.1 * hits}, recall, falling, falling)


@pytest.mark.parametrize("classes", [1, 3, TOGETHER + 1, 35])
def test_curves_of_few_and_many_classes(classes: int, tmp_path: Path) -> None:
    names = ["_hidden", "pr$ce", "größe 犬", *(f"class {k}" for k in range(classes))][:classes]
    score = Score("voc", {"mAP": 0.4}, tuple(curve(name, k % 9) for k, name in enumerate(names)))
    draw_curves(tmp_path / "curves.png", score, "a title with $ and _")
    height, width = cv2.imread(str(tmp_path / "curves.png")).shape[:2]
    assert (width > 1900) == (classes > TOGETHER)
    assert height < width
    with pytest.raises(UsageError, match="cannot be written"):
        draw_curves(tmp_path / "no folder" / "curves.png", score, "")


def test_best_f1_of_a_curve() -> None:
    rates = [np.array(x) for x in ([0.2, 0.4, 0.6], [1.0, 1.0, 0.5], [0.9, 0.8, 0.1])]
    best = ClassScore("cat", 5, {"AP": 0.5}, *rates).best()
    assert best is not None
    assert (best.score, best.recall, best.precision) == (0.8, 0.4, 1.0)
    assert best.f1 == pytest.approx(0.8 / 1.4)
    empty = np.zeros(0)
    assert ClassScore("cat", 5, {"AP": 0.0}, empty, empty, empty).best() is None
    assert ClassScore("cat", 5, {"AP": 0.0}, *[np.zeros(3)] * 3).best() is None


def test_classes_are_matched_by_name() -> None:
    from dataclasses import replace

    spec = replace(tiny_spec(), labels=("background", "TV_monitor", "dining table", "cat", "x"))
    data = ("background", "cat", "diningtable", "tv", "dog")
    assert match_labels(spec, data).tolist() == [0, 3, 2, 1, 0]


def test_data_that_cannot_be_scored(tiny: Path, tmp_path: Path) -> None:
    names = write_bright_set(tmp_path / "data", ("glum", "dark"))
    with open_backend(tiny) as backend:
        with pytest.raises(UsageError, match=r"knows none of the classes of .*: the data has glum"):
            evaluate(backend, open_dataset(f"coco:{names}"))
        path = tmp_path / "data" / "instances.json"
        content = json.loads(path.read_text())
        content["categories"][0]["name"] = "bright"
        path.write_text(json.dumps({**content, "annotations": []}))
        with pytest.raises(UsageError, match="has no object of a class that model 'tiny' knows"):
            evaluate(backend, open_dataset(f"coco:{names}"))
