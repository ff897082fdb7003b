"""The GPU benchmark on machines without a GPU, and on the stand-in for the driver."""

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

from benchmarks.gpu.__main__ import main
from benchmarks.gpu.checks import SECTIONS
from benchmarks.gpu.models import (
    BenchmarkModel,
    fill_weights,
    onnx_scores,
    strip_weights,
    typical_threshold,
)
from benchmarks.gpu.report_rows import Report, SkippedError, count_rows, format_row
from realtime_ssd.core.gpu import find_gpus
from realtime_ssd.core.spec import read_spec
from tests.benchmarks.gpu_on_standin import FAULTS, MODULE
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
    rows = run_on_standin(tmp_path, "--only", "machine", "kernels")
    kernels = [row for row in rows if row["section"] == "kernels"]
    passed = [row for row in kernels if row["status"] in ("ok", "met")]
    assert len(passed) >= 20
    assert all(row["status"].startswith("skipped") for row in kernels if row not in passed)


def run_on_standin(
    tmp_path: Path, *options: str, status: int = 0, **variables: str
) -> list[dict[str, Any]]:
    """Run the benchmark on the stand-in for the driver and return the rows."""
    output = tmp_path / "gpu.json"
    environment = {**standin_environment(tmp_path, ROOT), **variables}
    command = [sys.executable, "-m", MODULE, "--quick", "--seed", "7", "--output", str(output)]
    result = subprocess.run(
        [*command, *options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=590,
    )
    assert result.returncode == status, result.stdout[-3000:] + result.stderr[-3000:]
    return read_rows(output)


@pytest.mark.timeout(600)
@pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU")
def test_a_fault_affects_only_its_own_check(tmp_path: Path) -> None:
    rows = run_on_standin(tmp_path, "--only", "frame", "machine", status=1, **{FAULTS: "1"})
    crash, lost, healthy = (row for row in rows if row["section"] == "frame")
    assert crash["status"] == "failed: the process was ended by SIGSEGV; see frame.log"
    assert lost["status"] == "failed: ValueError: planted"
    assert healthy["name"] == "healthy"
    assert healthy["status"] in ("met", "missed")
    machine = [row for row in rows if row["section"] == "machine"]
    assert machine
    assert not any(row["status"].startswith("failed") for row in machine)


def _raise(error: Exception) -> None:
    raise error


def test_an_exception_becomes_one_row() -> None:
    report = Report(lambda row: None)
    with report.guard("a", "breaks"):
        _raise(ValueError("too\nbad"))
    with report.guard("a", "absent"):
        _raise(SkippedError("not available"))
    with report.guard("a", "package"):
        _raise(ModuleNotFoundError("No module named 'filelock'", name="filelock"))
    report.number("a", "fast", 2.0, "µs", most=3, clock=1980)
    report.number("a", "slow", 4.0, "µs", most=3)
    report.number("a", "many", 4.0, "images/s", least=3)
    assert [row.status for row in report.rows] == [
        "failed: ValueError: too bad",
        "skipped: not available",
        "skipped: the package filelock is not installed",
        *("met", "missed", "met"),
    ]
    assert report.rows[3].target == "≤ 3"
    assert format_row(report.rows[3]).endswith("(target ≤ 3)       met  [1980 MHz]")
    assert count_rows(report.rows) == {"failed": 1, "skipped": 2, "met": 2, "missed": 1}


def test_the_threshold_of_untrained_networks_depends_on_the_candidates(tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "tiny.onnx")
    model = BenchmarkModel("tiny", path, read_spec(path))
    scores = onnx_scores(model)
    limit = typical_threshold(model.spec, scores, candidates=3)
    assert 0 < limit < 1
    assert typical_threshold(model.spec, scores, candidates=1) > limit


@pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU")
def test_the_benchmark_runs_without_optional_packages(tmp_path: Path) -> None:
    """The first pass on a GPU requires numpy and cuda-bindings only."""
    names = ["av", "cyclopts", "rich", "supervision", "platformdirs", "filelock", "pooch"]
    names += ["cv2", "onnx", "onnxruntime", "torch"]
    lines = "".join(f"sys.modules[{name!r}] = None\n" for name in names)
    (tmp_path / "sitecustomize.py").write_text(f"import sys\n{lines}")
    output = tmp_path / "gpu.json"
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--quick", "--output", str(output)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    rows = read_rows(output)
    assert {row["section"] for row in rows} == set(SECTIONS)
    without = [row for row in rows if "is not installed" in row["status"]]
    assert {row["section"] for row in without} <= {"kernels", "sanitizer", "nvdec", "engines"}


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
