"""The GPU benchmark on machines without a GPU, and on the stand-in for the driver."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from benchmarks.gpu.__main__ import SECTIONS, main
from benchmarks.gpu.head_cases import ssd300_case
from benchmarks.gpu.kernels import difference
from benchmarks.gpu.models import (
    BenchmarkModel,
    fill_weights,
    strip_weights,
    typical_threshold,
)
from benchmarks.gpu.report_rows import Report, SkippedError
from realtime_ssd.core.gpu import find_gpus
from realtime_ssd.core.postprocess import PostProcessor
from realtime_ssd.core.spec import read_spec
from tests.engines.cuda.host_driver import standin_environment
from tests.tiny import tiny_model

ROOT = Path(__file__).resolve().parents[2]
STATUSES = {"ok", "met", "missed", "failed", "skipped"}


def read_rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    assert rows
    assert {row["status"].partition(":")[0] for row in rows} <= STATUSES
    return rows


@pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU")
def test_without_a_gpu_all_rows_are_skipped_with_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "gpu.json"
    assert main(["--output", str(output), "--data", str(tmp_path)]) == 0
    rows = read_rows(output)
    assert {row["section"] for row in rows} == set(SECTIONS)
    for row in rows:
        if row["section"] != "machine":
            assert row["status"].startswith("skipped: "), row
            assert row["value"] is None
    output_text = capsys.readouterr().out
    assert "there is no NVIDIA driver" in output_text or "reports no GPU" in output_text
    assert str(output) in output_text


@pytest.mark.timeout(600)
@pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU")
def test_kernel_checks_pass_on_the_driver_standin(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    environment = standin_environment(tmp_path, ROOT)
    command = [sys.executable, "-m", "tests.benchmarks.gpu_on_standin", "--quick", "--seed", "7"]
    command += ["--only", "machine", "kernels", "--output", str(output)]
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=590
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    rows = read_rows(output)
    kernels = [row for row in rows if row["section"] == "kernels"]
    passed = [row for row in kernels if row["status"] in ("ok", "met")]
    assert len(passed) >= 20
    assert all(row["status"].startswith("skipped") for row in kernels if row not in passed)


def _raise(error: Exception) -> None:
    raise error


def test_an_exception_becomes_one_row() -> None:
    report = Report(lambda line: None, budget=0.0)
    with report.guard("a", "breaks"):
        _raise(ValueError("too\nbad"))
    with report.guard("a", "late"):
        report.check_time()
    with report.guard("a", "absent"):
        _raise(SkippedError("not available"))
    report.number("a", "fast", 2.0, "µs", most=3)
    report.number("a", "slow", 4.0, "µs", most=3)
    report.number("a", "many", 4.0, "images/s", least=3)
    statuses = [row.status for row in report.rows]
    assert statuses[0] == "failed: ValueError: too bad"
    with report.guard("a", "package"):
        _raise(ModuleNotFoundError("No module named 'filelock'", name="filelock"))
    assert report.rows.pop().status == "skipped: the package filelock is not installed"
    assert statuses[1] == "skipped: the time budget of 0 s is exceeded (--budget)"
    assert statuses[2:] == ["skipped: not available", "met", "missed", "met"]
    assert report.rows[4].target == "≤ 3"
    assert report.counts() == {"failed": 1, "skipped": 2, "met": 2, "missed": 1}


def test_the_threshold_of_untrained_networks_depends_on_the_candidates(tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "tiny.onnx")
    model = BenchmarkModel("tiny", path, read_spec(path))
    limit = typical_threshold(model, candidates=3)
    assert 0 < limit < 1
    assert typical_threshold(model, candidates=1) > limit


@pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU")
def test_the_benchmark_runs_without_optional_packages(tmp_path: Path) -> None:
    """PyAV and the packages of the command line and the caches are not required."""
    names = ("av", "cyclopts", "rich", "supervision", "platformdirs", "filelock")
    lines = "".join(f"sys.modules[{name!r}] = None\n" for name in names)
    script = f"import sys\n{lines}from benchmarks.gpu.__main__ import main\n"
    script += f"sys.exit(main(['--quick', '--output', {str(tmp_path / 'gpu.json')!r}]))\n"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert {row["section"] for row in read_rows(tmp_path / "gpu.json")} == set(SECTIONS)


def test_different_detections_are_reported() -> None:
    case = ssd300_case(np.random.default_rng(1), 1)
    expected = PostProcessor(case.spec)(case.scores[0], case.offsets[0])
    assert len(expected.scores) == case.spec.thresholds.max_detections
    assert difference(expected, expected) == ""
    stricter = PostProcessor(case.spec.with_thresholds(iou_threshold=0.2))(
        case.scores[0], case.offsets[0]
    )
    assert difference(stricter, expected)
    moved = PostProcessor(case.spec)(case.scores[0], case.offsets[0] + np.float32(0.01))
    assert difference(moved, expected).startswith(("different ", "boxes differ"))


def test_stripped_weights_are_replaced_by_random_ones() -> None:
    weights = np.random.default_rng(0).normal(0, 0.25, (64, 32, 3, 3)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["x", "w"], ["y"])],
        "one",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 32, 8, 8])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 64, 6, 6])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = onnx.helper.make_model(graph)
    stripped = strip_weights(model)
    assert stripped.ByteSize() < 1000 < model.ByteSize()
    filled = fill_weights(onnx.load_model_from_string(stripped.SerializeToString()))
    onnx.checker.check_model(filled)
    (values,) = (onnx.numpy_helper.to_array(weight) for weight in filled.graph.initializer)
    assert values.shape == weights.shape
    assert values.std() == pytest.approx(0.25, rel=0.05)
