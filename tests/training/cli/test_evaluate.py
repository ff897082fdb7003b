"""`realtime-ssd evaluate` end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from realtime_ssd_training.evaluation.report_folder import FILES
from safetensors.torch import save_file

from realtime_ssd.cli import main
from tests.cli.program import ENVIRONMENT, run
from tests.tiny import tiny_model
from tests.training.bright import write_bright_set

VOC_CLASSES = [
    *("airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("dining table", "dog", "horse", "motorcycle", "person", "potted plant", "sheep", "couch"),
    *("train", "tv"),
]
"""Pascal VOC's classes under their COCO names."""


@pytest.fixture(scope="module")
def golden(shared_data: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Metrics of the real model computed by pycocotools."""
    path = shared_data / "golden" / "ssd_mobilenet_v1_coco_onnx_map.json"
    results: dict[str, dict[str, dict[str, float]]] = json.loads(path.read_text())["results"]
    return results


@pytest.mark.parametrize(
    ("name", "images", "classes"),
    [
        ("coco_mini", "JPEGImages", "all_coco"),
        ("coco_mini", "JPEGImages", "voc20"),
        ("coco_person_val", "images", "selected"),
        ("dali_coco61", "images", "all_coco"),
        ("dali_coco61", "images", "voc20"),
    ],
)
def test_the_real_model_has_the_ap_of_pycocotools(
    coco_model: Path,
    shared_data: Path,
    golden: dict[str, dict[str, dict[str, float]]],
    tmp_path: Path,
    name: str,
    images: str,
    classes: str,
) -> None:
    folder, output = shared_data / name, tmp_path / "ap.json"
    arguments = ["--data", f"coco:{folder / 'instances.json'}:{folder / images}"]
    if classes == "voc20":
        arguments += ["--classes", ",".join(VOC_CLASSES)]
    done = run("evaluate", "--model", coco_model, *arguments, "--json", output)
    assert done.returncode == 0, done.stderr
    values, expected = json.loads(output.read_text()), golden[name][classes]
    for key in ("AP", "AP50", "AR100"):
        assert values[key] == pytest.approx(expected[key], abs=0.002), key
    assert len(values["per_class"]) == expected["categories"]
    assert values["score_threshold"] == 0.02
    printed = next(line for line in done.stdout.splitlines() if line.startswith("AP ")).split()
    assert float(printed[1]) == pytest.approx(values["AP"], abs=1e-4)


@pytest.mark.parametrize("metric", ["voc", "voc07"])
def test_table_report_and_json_agree(tiny: Path, tmp_path: Path, metric: str) -> None:
    data = f"coco:{write_bright_set(tmp_path / 'data')}"
    output, report = tmp_path / "a" / "ap.json", tmp_path / "report"
    arguments = ("--model", tiny, "--data", data, "--metric", metric, "--batch", 4)
    done = run("evaluate", *arguments, "--json", output, "--report", report)
    assert done.returncode == 0, done.stderr
    values = json.loads(output.read_text())
    assert (values["metric"], values["images"], values["unknown_classes"]) == (metric, 6, ["dark"])
    assert values["mAP"] == values["per_class"]["bright"] > 0.2
    assert values["classes"]["bright"]["objects"] == 5
    assert values["errors"]["background"] == values["errors"]["missed"] == 1
    assert sorted(item.name for item in report.iterdir()) == sorted(FILES)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["bright", "5", f"{values['mAP']:.4f}"] in [row[:3] for row in rows]
    assert ["medium", "5", f"{values['mAP_medium']:.4f}"] in rows
    assert "3 of 5 objects detected; errors: 1 background, 1 wrong class, 1 poor box" in done.stdout
    assert "excluded, not classes of the model: dark" in done.stdout


def test_the_score_threshold_truncates_the_curve(tiny: Path, tmp_path: Path) -> None:
    data = f"coco:{write_bright_set(tmp_path / 'data')}"
    results = []
    for threshold in (0.02, 1.0):
        output = tmp_path / f"{threshold}.json"
        arguments = ("--model", tiny, "--data", data, "--score-threshold", threshold)
        evaluate_exits(0, *arguments, "--json", output)
        results.append(json.loads(output.read_text()))
    assert results[0]["detections"] > results[1]["detections"] == 0
    assert results[0]["AP50"] > results[1]["AP50"] == 0


def test_a_model_is_compared_with_its_reference(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--model", tiny, "--data", f"coco:{write_bright_set(tmp_path / 'data')}")
    evaluate_exits(0, *arguments, "--reference", tiny)
    assert "|ΔAP| 0.0000" in capsys.readouterr().out
    other = tiny_model(tmp_path / "other.onnx", factor=-40.0)
    evaluate_exits(1, *arguments, "--reference", other)
    assert "the AP of the model differs from its reference: AP" in capsys.readouterr().err


def evaluate_exits(status: int, *arguments: object) -> None:
    """Run the command in this process and check its exit status."""
    with pytest.raises(SystemExit) as caught:
        main(["evaluate", *map(str, arguments)])
    assert (caught.value.code or 0) == status


DEMO = ("--data", "demo:900-900:64x64")


@pytest.mark.parametrize(
    ("status", "message", "arguments"),
    [
        (2, "model file 'gone.onnx' does not exist", ("--model", "gone.onnx", *DEMO)),
        (2, "'gone.safetensors' does not exist", ("--model", "gone.safetensors", *DEMO)),
        (2, "'gone.engine' does not exist", ("--model", "gone.engine", *DEMO)),
        (2, "there is no model 'gone'", ("--model", "gone", *DEMO)),
        (2, "use best.safetensors in it", ("--model", "run", *DEMO)),
        (1, "is not a checkpoint of this program", ("--model", "FOREIGN", *DEMO)),
        (1, "its metadata file is missing", ("--model", "ENGINE", *DEMO)),
        (
            2,
            "is an engine of backend 'tensorrt'",
            ("--model", "ENGINE", *DEMO, "--backend", "onnxruntime"),
        ),
        (2, "is a checkpoint, which", ("--model", "FOREIGN", *DEMO, "--backend", "onnxruntime")),
        (2, "'gone.json'", ("--model", "TINY", "--data", "coco:gone.json:.")),
        (2, "has no folder 'Annotations'", ("--model", "TINY", "--data", "voc:.")),
        (2, "does not specify a dataset", ("--model", "TINY", "--data", "somewhere")),
        (2, "contains no images", ("--model", "TINY", "--data", "demo:9-8")),
        (2, "has none of the classes", ("--model", "TINY", *DEMO)),
        (2, "metric 'mAP' is unknown", ("--model", "TINY", *DEMO, "--metric", "mAP")),
        (2, "between 0 and 1, not 1.5", ("--model", "TINY", *DEMO, "--score-threshold", 1.5)),
        (2, "between 0 and 1, not nan", ("--model", "TINY", *DEMO, "--score-threshold", "nan")),
        (2, "at least 1, not 0", ("--model", "TINY", *DEMO, "--batch", 0)),
        (2, "at least 1, not 0", ("--model", "FOREIGN", *DEMO, "--batch", 0)),
        (2, "set --overwrite to replace it", ("--model", "TINY", *DEMO, "--json", "taken.json")),
        (2, "is a folder", ("--model", "TINY", *DEMO, "--json", "folder")),
        (
            2,
            "taken.json' is not a folder",
            ("--model", "TINY", *DEMO, "--json", "taken.json/x.json"),
        ),
        (2, "is a file; --report must be", ("--model", "TINY", *DEMO, "--report", "taken.json")),
        (2, "sizes.png' exists", ("--model", "TINY", *DEMO, "--report", "folder")),
    ],
)
def test_usage_errors(
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    status: int,
    message: str,
    arguments: tuple[object, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    save_file({"weight": torch.zeros(1)}, "foreign.safetensors")
    Path("plan.engine").write_bytes(b"plan")
    Path("taken.json").write_text("precious")
    for file in (Path("folder/sizes.png"), Path("run/best.safetensors")):
        file.parent.mkdir()
        file.touch()
    names = {"TINY": tiny, "FOREIGN": "foreign.safetensors", "ENGINE": "plan.engine"}
    evaluate_exits(status, *(names.get(str(item), item) for item in arguments))
    output = capsys.readouterr()
    assert message in output.err
    assert len(output.err.splitlines()) == 1
    assert not output.out
    assert Path("taken.json").read_text() == "precious"


def test_a_dataset_without_images(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "empty.json"
    path.write_text(
        json.dumps({"images": [], "annotations": [], "categories": [{"id": 1, "name": "bright"}]})
    )
    done = run("evaluate", "--model", tiny, "--data", f"coco:{path}:{tmp_path}")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_problems_of_the_dataset_are_reported(tiny: Path, tmp_path: Path) -> None:
    write_bright_set(tmp_path / "data")
    path = tmp_path / "data" / "instances.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"] = [-20, 0, 60, 30]
    path.write_text(json.dumps(content))
    (tmp_path / "data" / "3.png").write_bytes(b"not an image")
    done = run("evaluate", "--model", tiny, "--data", f"coco:{path}:{tmp_path / 'data'}")
    assert done.returncode == 0, done.stderr
    assert "3.png" in done.stderr
    assert "5 of 5 images" in done.stderr


def test_narrow_terminal_keeps_class_names() -> None:
    wide, narrow = (
        run_with_columns(columns, "evaluate", "street", "--data", "demo:900-900")
        for columns in (120, 48)
    )
    for name in ("person", "cyclist", "traffic light"):
        assert f" {name} " in wide
        assert f" {name} " in narrow
    assert "AR100" in wide.splitlines()[1]
    assert "no room for" in narrow
    assert max(map(len, narrow.splitlines())) <= 48


def run_with_columns(columns: int, *arguments: str) -> str:
    """Return the standard output of the program in a terminal of some width."""
    done = subprocess.run(
        [sys.executable, "-m", "realtime_ssd", *arguments],
        env={**ENVIRONMENT, "COLUMNS": str(columns)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
