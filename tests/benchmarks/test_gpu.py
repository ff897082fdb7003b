"""The proof on machines without a GPU, and on the stand-in for the driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from benchmarks.gpu.__main__ import SECTIONS, main
from benchmarks.gpu.heads import ssd300_case
from benchmarks.gpu.kernels import difference
from benchmarks.gpu.rows import Report, SkippedError
from benchmarks.gpu.subjects import Subject, fill, hollow, usual_threshold
from realtime_ssd.core.gpu import find_gpus
from realtime_ssd.core.postprocess import PostProcessor
from realtime_ssd.core.spec import read_spec
from tests.engines.cuda.host_driver import build_driver
from tests.tiny import tiny_model

ROOT = Path(__file__).resolve().parents[2]
WORDS = {"ok", "met", "missed", "failed", "skipped"}


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    assert rows
    assert {row["status"].partition(":")[0] for row in rows} <= WORDS
    return rows


@pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU")
def test_without_a_gpu_every_row_says_why_it_was_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "gpu.json"
    assert main(["--output", str(output), "--data", str(tmp_path)]) == 0
    rows = rows_of(output)
    assert {row["section"] for row in rows} == set(SECTIONS)
    for row in rows:
        if row["section"] != "machine":
            assert row["status"].startswith("skipped: "), row
            assert row["value"] is None
    told = capsys.readouterr().out
    assert "there is no NVIDIA driver" in told or "shows no GPU" in told
    assert str(output) in told


@pytest.mark.timeout(600)
@pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU")
def test_kernels_and_copies_on_the_stand_in(tmp_path: Path) -> None:
    """Everything but the times is as on a GPU."""
    build_driver(tmp_path)
    output = tmp_path / "gpu.json"
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": f"{tmp_path}:{os.environ.get('LD_LIBRARY_PATH', '')}",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "tests.benchmarks.host_proof", "--quick", "--seed", "7"]
    command += ["--only", "machine", "kernels", "--output", str(output)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=590
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = rows_of(output)
    kernels = [row for row in rows if row["section"] == "kernels"]
    good = [row for row in kernels if row["status"] in ("ok", "met")]
    assert len(good) >= 20
    assert all(row["status"].startswith("skipped") for row in kernels if row not in good)


def test_a_failure_is_one_row_and_the_rest_goes_on() -> None:
    report = Report(lambda line: None, budget=0.0)
    with report.guard("a", "breaks"):
        raise ValueError("too\nbad")
    with report.guard("a", "late"):
        report.check_time()
    with report.guard("a", "absent"):
        raise SkippedError("there is none")
    report.number("a", "fast", 2.0, "µs", most=3)
    report.number("a", "slow", 4.0, "µs", most=3)
    report.number("a", "many", 4.0, "images/s", least=3)
    statuses = [row.status for row in report.rows]
    assert statuses[0] == "failed: ValueError: too bad"
    with report.guard("a", "package"):
        raise ModuleNotFoundError("No module named 'filelock'", name="filelock")
    assert report.rows.pop().status == "skipped: the package filelock is not installed"
    assert statuses[1] == "skipped: the 0 s of --budget are spent"
    assert statuses[2:] == ["skipped: there is none", "met", "missed", "met"]
    assert report.rows[4].target == "≤ 3"
    assert report.counts() == {"failed": 1, "skipped": 2, "met": 2, "missed": 1}


def test_untrained_networks_find_about_as_much_as_trained_ones(tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "tiny.onnx")
    subject = Subject("tiny", path, read_spec(path))
    limit = usual_threshold(subject, candidates=3)
    assert 0 < limit < 1
    assert usual_threshold(subject, candidates=1) > limit


@pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU")
def test_the_proof_starts_where_only_the_networks_packages_are(tmp_path: Path) -> None:
    """PyAV, the command line and the caches' packages need not be there."""
    names = ("av", "cyclopts", "rich", "supervision", "platformdirs", "filelock")
    lines = "".join(f"sys.modules[{name!r}] = None\n" for name in names)
    script = f"import sys\n{lines}from benchmarks.gpu.__main__ import main\n"
    script += f"sys.exit(main(['--quick', '--output', {str(tmp_path / 'gpu.json')!r}]))\n"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {row["section"] for row in rows_of(tmp_path / "gpu.json")} == set(SECTIONS)


def test_a_wrong_answer_is_noticed() -> None:
    case = ssd300_case(np.random.default_rng(1), 1)
    found = PostProcessor(case.spec)(case.scores[0], case.offsets[0])
    assert len(found.scores) == case.spec.thresholds.max_detections
    assert difference(found, found) == ""
    other = PostProcessor(case.spec.with_thresholds(iou_threshold=0.2))(
        case.scores[0], case.offsets[0]
    )
    assert difference(other, found)
    moved = PostProcessor(case.spec)(case.scores[0], case.offsets[0] + np.float32(0.01))
    assert "were kept" in difference(moved, found) or "boxes differ" in difference(moved, found)


def test_networks_travel_without_their_weights() -> None:
    weights = np.random.default_rng(0).normal(0, 0.25, (64, 32, 3, 3)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["x", "w"], ["y"])],
        "one",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 32, 8, 8])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 64, 6, 6])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = onnx.helper.make_model(graph)
    small = hollow(model)
    assert small.ByteSize() < 1000 < model.ByteSize()
    again = fill(onnx.load_model_from_string(small.SerializeToString()))
    onnx.checker.check_model(again)
    (made,) = (onnx.numpy_helper.to_array(weight) for weight in again.graph.initializer)
    assert made.shape == weights.shape
    assert made.std() == pytest.approx(0.25, rel=0.05)
