"""Evaluation of checkpoints and ONNX files, reports and plots."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.patches import Rectangle
from realtime_ssd_training.data import open_dataset
from realtime_ssd_training.evaluation.error_analysis import KINDS, ErrorAnalysis
from realtime_ssd_training.evaluation.evaluator import (
    Evaluation,
    Metric,
    check_metric,
    evaluate,
    match_labels,
    open_model,
)
from realtime_ssd_training.evaluation.metric_plots import (
    MAX_SHARED_CURVES,
    _bin_edges,
    _draw_detection_rate,
    _envelope,
    draw_curves,
    new_figure,
)
from realtime_ssd_training.evaluation.report_folder import (
    FILES,
    _short_name,
    check_outputs,
    write_report,
)
from realtime_ssd_training.evaluation.voc_metrics import ClassResult, MetricResult
from realtime_ssd_training.export import export_onnx
from realtime_ssd_training.models.checkpoint import save_checkpoint

from realtime_ssd.backends import Backend, PendingBatch, open_backend
from realtime_ssd.backends.tiled import TiledBackend
from realtime_ssd.core.errors import RealtimeSSDError, UsageError
from realtime_ssd.core.frames import Frame, Image
from realtime_ssd.core.tiles import TileOptions
from tests.tiny import tiny_spec
from tests.training.bright import write_bright_set
from tests.training.test_export import LABELS, STREET, street_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the same network as a checkpoint and as an ONNX file."""
    folder, model = tmp_path_factory.mktemp("models"), street_model()
    checkpoint, onnx = folder / "best.safetensors", folder / "model.onnx"
    save_checkpoint(checkpoint, model)
    export_onnx(model, onnx, photos=STREET)
    return checkpoint, onnx


@pytest.fixture(scope="module")
def data(models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a dataset whose objects lie close to some detections of the network."""
    folder, random = tmp_path_factory.mktemp("data"), np.random.default_rng(4)
    images, annotations = list[dict[str, object]](), list[dict[str, object]]()
    with open_for_test(models[0]) as backend:
        for number in range(1, 12):
            image = np.roll(STREET[number % 3], 25 * number, axis=1)
            cv2.imwrite(str(folder / f"{number}.png"), image)
            images.append({"id": number, "file_name": f"{number}.png", "width": 320, "height": 180})
            for box, label in perturbed_detections(backend, image, random):
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


def open_for_test(path: Path, batch: int = 1) -> Backend:
    return open_model(path, batch=batch, score_threshold=0.3)


def perturbed_detections(
    backend: Backend, image: Image, random: np.random.Generator
) -> Iterator[tuple[list[float], int]]:
    """Yield box and class of some detections, with noise on the boxes."""
    (detected,) = backend.collect(backend.submit([Frame(image)]))
    for row in range(0, min(len(detected), 24), 3):
        box = np.clip(detected.boxes[row] + random.normal(0, 2, 4), 0, [320, 180, 320, 180])
        if (box[2:] - box[:2] > 4).all():
            yield box.tolist(), int(detected.class_ids[row])


def evaluate_file(path: Path, data: str, metric: Metric = "coco", batch: int = 1) -> Evaluation:
    with open_for_test(path, batch) as backend:
        return evaluate(backend, open_dataset(data), metric)


@pytest.mark.parametrize("metric", ["coco", "voc07", "voc"])
def test_checkpoint_and_onnx_file_agree_at_every_batch_size(
    models: tuple[Path, Path], data: str, metric: Metric
) -> None:
    first = evaluate_file(models[0], data, metric)
    assert (first.backend, first.unknown_classes) == ("torch", ())
    assert 0.1 < first.metrics.mean < 0.9
    assert all(item.objects > 8 for item in first.metrics.classes)
    for path, batch in ((models[0], 8), (models[1], 1), (models[1], 8)):
        other = evaluate_file(path, data, metric, batch)
        assert other.backend == ("torch" if path is models[0] else "onnxruntime")
        # Rounding may move a single box across an IoU or score threshold.
        assert other.metrics.summary == pytest.approx(first.metrics.summary, abs=1e-3, nan_ok=True)
        assert other.errors.counts == pytest.approx(first.errors.counts, abs=2)
        actual, expected = (sum(map(len, each.detections)) for each in (other, first))
        assert actual == pytest.approx(expected, rel=0.01)


def test_bundled_model_at_two_batch_sizes() -> None:
    from realtime_ssd.zoo import BUNDLED

    results = []
    for batch in (1, 8):
        with open_model(BUNDLED, batch=batch) as backend:
            assert backend.max_batch == batch
            results.append(evaluate(backend, open_dataset("demo:900-901")).to_dict())
    assert results[0]["AP"] > 0.5
    assert results[0]["score_threshold"] == 0.02
    assert results[1]["per_class"] == pytest.approx(results[0]["per_class"], abs=1e-6)


def test_report(tiny: Path, tmp_path: Path) -> None:
    dataset = open_dataset(f"coco:{write_bright_set(tmp_path / 'data')}")
    with open_model(tiny) as backend:
        evaluation = evaluate(backend, dataset)
    folder = tmp_path / "new" / "report"
    check_outputs(None, folder, overwrite=False)
    write_report(folder, evaluation)
    assert sorted(item.name for item in folder.iterdir()) == sorted(FILES)
    values = json.loads((folder / "evaluation.json").read_text())
    assert values["AP50"] == pytest.approx(evaluation.metrics.summary["AP50"], abs=1e-6)
    assert [item["kind"] for item in values["worst"]] == [k for k in KINDS if k != "duplicate"]
    assert values["worst"][1]["object"] == {"label": "dark", "box": [40.0, 60.0, 80.0, 90.0]}
    for name in FILES[1:]:
        plot = cv2.imread(str(folder / name))
        assert plot is not None
        assert min(plot.shape[:2]) > 400
        assert plot.std() > 10
    with pytest.raises(UsageError, match=r"evaluation\.json' exists; set `overwrite`"):
        check_outputs(None, folder, overwrite=False)
    check_outputs(None, folder, overwrite=True)
    with pytest.raises(UsageError, match="is a file; `report` must be a folder"):
        check_outputs(None, folder / "evaluation.json", overwrite=True)


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_unreadable_images_are_left_out(tiny: Path, tmp_path: Path, batch: int) -> None:
    dataset = open_dataset(f"coco:{write_bright_set(tmp_path / 'data')}")
    fewer = open_dataset(f"coco:{write_bright_set(tmp_path / 'fewer', skip=(1, 6))}")
    (tmp_path / "data" / "1.png").unlink()
    (tmp_path / "data" / "6.png").write_bytes(b"not an image")
    with open_model(tiny, batch=batch) as backend:
        result, expected = (evaluate(backend, data, "voc") for data in (dataset, fewer))
    assert result.to_dict() == expected.to_dict()
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


def class_result(label: str, points: int) -> ClassResult:
    recall = np.linspace(0.1, 0.1 * points, points)
    precision = np.linspace(1.0, 0.5, points)
    return ClassResult(label, 10, {"AP": 0.1 * points}, recall, precision, precision)


@pytest.mark.parametrize("classes", [1, 3, MAX_SHARED_CURVES + 1, 35])
def test_curves_of_few_and_many_classes(classes: int, tmp_path: Path) -> None:
    names = ["_hidden", "pr$ce", "größe 犬", *(f"class {k}" for k in range(classes))][:classes]
    results = tuple(class_result(name, k % 9) for k, name in enumerate(names))
    metrics = MetricResult("voc", {"mAP": 0.4}, results)
    draw_curves(tmp_path / "curves.png", metrics, "a title with $ and _")
    plot = cv2.imread(str(tmp_path / "curves.png"))
    assert plot is not None
    height, width = plot.shape[:2]
    assert (width > 1900) == (classes > MAX_SHARED_CURVES)
    if classes > MAX_SHARED_CURVES:  # 1.75 inches per row of ten diagrams, at 110 dpi
        assert height == pytest.approx((1.75 * -(-classes // 10) + 1.5) * 110, abs=1)
    assert height < width
    with pytest.raises(UsageError, match="cannot be written"):
        draw_curves(tmp_path / "no folder" / "curves.png", metrics, "")


def test_every_kind_of_model_runs_on_tiles(models: tuple[Path, Path]) -> None:
    for path in models:
        with open_model(path, tile=TileOptions((64, 64))) as backend:
            assert isinstance(backend, TiledBackend)


def test_best_f1_of_a_curve() -> None:
    columns = [np.array(x) for x in ([0.2, 0.4, 0.6], [1.0, 1.0, 0.5], [0.9, 0.8, 0.1])]
    best = ClassResult("cat", 5, {"AP": 0.5}, *columns).best_f1()
    assert best is not None
    assert (best.score, best.recall, best.precision) == (0.8, 0.4, 1.0)
    assert best.f1 == pytest.approx(0.8 / 1.4)
    empty = np.zeros(0)
    assert ClassResult("cat", 5, {"AP": 0.0}, empty, empty, empty).best_f1() is None
    assert ClassResult("cat", 5, {"AP": 0.0}, *[np.zeros(3)] * 3).best_f1() is None


def test_classes_are_matched_by_normalized_name() -> None:
    spec = replace(tiny_spec(), labels=("background", "TV_monitor", "dining table", "cat", "x"))
    data = ("background", "cat", "diningtable", "tv", "dog")
    assert match_labels(spec, data).tolist() == [0, 3, 2, 1, 0]


CASES = [
    (("A", "a"), ("a", "A"), [2, 1]),
    (("A",), ("a",), [1]),
    (("A",), ("a", "A"), [2]),
    (("A", "a"), ("a",), [0, 1]),
    (("B", "b"), ("a", "B "), [0, 0]),  # either could be meant
    (("tv", "TV"), ("tvmonitor", "TV"), [1, 2]),
    (("traffic-light",), ("Traffic Light", "traffic_light"), [0]),
]


@pytest.mark.parametrize(("model", "data", "expected"), CASES)
def test_classes_that_differ_by_case_stay_apart(
    model: tuple[str, ...], data: tuple[str, ...], expected: list[int]
) -> None:
    spec = replace(tiny_spec(), labels=("background", *model))
    assert match_labels(spec, ("background", *data)).tolist() == [0, *expected]


def test_data_without_objects_of_known_classes(tiny: Path, tmp_path: Path) -> None:
    names = write_bright_set(tmp_path / "data", ("glum", "dark"))
    with open_backend(tiny) as backend:
        with pytest.raises(UsageError, match=r"has none of the classes of .*: the data has glum"):
            evaluate(backend, open_dataset(f"coco:{names}"))
        path = tmp_path / "data" / "instances.json"
        content = json.loads(path.read_text())
        content["categories"][0]["name"] = "bright"
        path.write_text(json.dumps({**content, "annotations": []}))
        with pytest.raises(UsageError, match="has no object of a class that model 'tiny' knows"):
            evaluate(backend, open_dataset(f"coco:{names}"))


def test_missing_packages_are_reported_before_inference(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset(f"coco:{write_bright_set(tmp_path / 'data')}")
    for package in ("faster_coco_eval", "matplotlib"):
        monkeypatch.setitem(sys.modules, package, None)
    with open_model(tiny) as backend:
        monkeypatch.setattr(backend, "submit", lambda frames: pytest.fail("inference started"))
        with pytest.raises(RealtimeSSDError, match=r"'faster_coco_eval'.*or set `metric` to voc"):
            evaluate(backend, dataset, "coco")
    with pytest.raises(RealtimeSSDError, match="a report requires 'matplotlib'"):
        check_outputs(None, tmp_path / "report", overwrite=False)
    assert check_metric("voc") == "voc"
    with pytest.raises(RealtimeSSDError, match="faster_coco_eval"):
        check_metric("coco")


def test_unknown_metric() -> None:
    with pytest.raises(UsageError, match="metric 'mAP' is unknown; choose coco, voc07, voc"):
        check_metric("mAP")


def test_curve_starts_at_recall_zero_never_rises_and_ends_at_zero() -> None:
    columns = [np.array(x) for x in ([0.2, 0.4, 0.6], [0.5, 1.0, 0.5], [0.9, 0.8, 0.1])]
    recall, precision = _envelope(ClassResult("cat", 5, {"AP": 0.5}, *columns))
    assert recall.tolist() == [0, 0.2, 0.4, 0.6, 0.6]
    assert precision.tolist() == [1, 1, 1, 0.5, 0]


@pytest.mark.parametrize(
    ("sides", "edges"),
    [
        ([], [16, 32, 64, 128, 256]),
        ([0.0, 40.0], [32, 64]),
        ([32.0], [32, 64]),
        ([10.0, 63.9], [8, 16, 32, 64]),
    ],
)
def test_bin_edges_are_powers_of_two_around_all_sides(
    sides: list[float], edges: list[float]
) -> None:
    assert _bin_edges(sides).tolist() == edges


@pytest.mark.parametrize(("batch", "sizes"), [(1, [1] * 6), (4, [4, 2]), (8, [6])])
def test_images_are_submitted_in_full_batches(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int, sizes: list[int]
) -> None:
    dataset = open_dataset(f"coco:{write_bright_set(tmp_path / 'data')}")
    submitted, progress = list[int](), list[tuple[int, int]]()
    with open_model(tiny, batch=batch) as backend:
        submit: Callable[[Sequence[Frame]], PendingBatch] = backend.submit

        def record(frames: Sequence[Frame]) -> PendingBatch:
            submitted.append(len(frames))
            return submit(frames)

        monkeypatch.setattr(backend, "submit", record)
        evaluate(backend, dataset, "voc", lambda done, total: progress.append((done, total)))
    assert submitted == sizes
    assert progress == [(sum(sizes[: k + 1]), 6) for k in range(len(sizes))]


def test_report_title_has_short_paths() -> None:
    assert (
        _short_name("coco:/data/coco/val.json:/data/coco/images")
        == "coco:coco/val.json:coco/images"
    )
    assert _short_name("demo:900-901") == "demo:900-901"


def test_detection_rate_by_object_size() -> None:
    sides, detected = np.array([20.0, 20, 20, 40, 70]), np.array([True, True, False, False, True])
    axes = new_figure(5, 4).subplots()
    _draw_detection_rate(axes, ErrorAnalysis(0.25, 3, 5, (), sides, detected))
    heights = [bar.get_height() for bar in axes.patches if isinstance(bar, Rectangle)]
    assert heights == [2, 0, 1, 1, 1, 0]  # detected, then missed objects per bin
    assert [text.get_text() for text in axes.texts] == ["67 %", "0 %", "100 %"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["16", "32", "64", "128"]
    assert axes.get_title() == "Detected at IoU 0.5 and score ≥ 0.25"
