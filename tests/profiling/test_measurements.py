"""Medians, noise and comparison, checked against numbers worked out by hand."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from realtime_ssd.backends import Backend, BackendOptions, PendingBatch, open_backend
from realtime_ssd.core.cpu import cpu_count
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.frames import Frame
from realtime_ssd.pipeline import Pipeline
from realtime_ssd.profiling import benchmark, runs
from realtime_ssd.profiling.benchmark import BenchmarkOptions, bottleneck
from realtime_ssd.profiling.compare import changed_settings, compare, read_result
from realtime_ssd.profiling.measurements import from_latencies, from_rates
from realtime_ssd.profiling.memory_sources import RenamedSource
from realtime_ssd.profiling.runs import STAGE_NAMES, Case, PipelineRun, time_batches
from realtime_ssd.sources import Source, open_source
from tests.videos import make_video


def test_median_noise_and_percentiles_of_latencies() -> None:
    seconds = [0.001] * 4 + [0.002] * 4 + [0.003] * 4 + [0.004] * 4 + [0.100] * 4
    row = from_latencies("network", 2, seconds)
    assert list(row.repeats) == [1, 2, 3, 4, 100]
    assert (row.value, row.unit, row.batch) == (3, "ms", 2)
    assert row.noise == pytest.approx((4 - 2) / 2 / 3, abs=1e-4)
    assert row.percentiles["p50"] == 3
    assert row.percentiles["max"] == 100
    assert row.fps == pytest.approx(2 / 0.003, abs=0.01)
    assert from_latencies("paced", 1, seconds, fps=30).fps == 30


def test_single_duration_and_rates_without_durations() -> None:
    assert from_latencies("x", 1, [0.5]).value == 500
    rates = from_rates("x", 1, [10, 30, 20], [])
    assert (rates.value, rates.fps, rates.percentiles) == (20, 20, {})


VERSIONS = {"packages": {"onnxruntime": "1.20"}, "python": "3.11", "driver": ""}


def result(rate: float, milliseconds: float, noise: float) -> dict:  # type: ignore[type-arg]
    shared = {"batch": 1, "noise": noise}
    return {
        "machine": {"cpu": "a", "cores": 2, "gpus": [], **VERSIONS},
        "model": {"sha256": "1"},
        **dict.fromkeys(("backend", "precision", "source", "picture", "streams"), "same"),
        "rows": [
            {"what": "loop", "unit": "fps", "value": rate, **shared},
            {"what": "network", "unit": "ms", "value": milliseconds, **shared},
        ],
    }


@pytest.mark.parametrize(
    ("rate", "milliseconds", "noise", "verdicts"),
    [
        (200, 5, 0.01, ["faster", "faster"]),
        (50, 20, 0.01, ["slower", "slower"]),
        (110, 9, 0.2, ["same within noise"] * 2),
        (101, 10, 0.0, ["same within noise"] * 2),
    ],
)
def test_verdicts_of_a_comparison(
    rate: float, milliseconds: float, noise: float, verdicts: list[str]
) -> None:
    changes = compare(result(rate, milliseconds, noise), result(100, 10, noise))
    assert [change.verdict for change in changes] == verdicts
    assert changes[0].ratio == pytest.approx(rate / 100)
    assert changes[1].ratio == pytest.approx(10 / milliseconds)


def test_changed_settings_are_named() -> None:
    other = {**result(1, 1, 0), "backend": "tensorrt", "model": {"sha256": "2"}}
    assert changed_settings(result(1, 1, 0), other) == ["model", "backend"]
    newer = result(1, 1, 0)
    newer["machine"]["packages"] = {"onnxruntime": "1.21"}
    assert changed_settings(result(1, 1, 0), newer) == ["versions"]


@pytest.mark.parametrize(
    "change",
    [
        {"machine": None},
        {"model": {}},
        {"rows": [{"what": "x", "unit": "ms", "batch": 1, "value": math.nan, "noise": 0}]},
        {"rows": [{"what": 1, "unit": "ms", "batch": 1, "value": 1, "noise": 0}]},
    ],
)
def test_incomplete_result_files_are_rejected(tmp_path: Path, change: dict) -> None:  # type: ignore[type-arg]
    file = tmp_path / "old.json"
    file.write_text(json.dumps(result(1, 1, 0)))
    assert read_result(file)["backend"] == "same"
    file.write_text(json.dumps({**result(1, 1, 0), **change}))
    with pytest.raises(UsageError, match="is not a result of realtime-ssd benchmark"):
        read_result(file)


def pipeline_runs(file: float, memory: float) -> dict[str, PipelineRun]:
    stages = {"capture": 0.002, "network": 9.0, "postprocess": 0.001}
    return {
        name: PipelineRun(from_rates(name, 8, [rate], []), 0, stages, {})
        for name, rate in (("file", file), ("memory", memory))
    }


def test_bottleneck_counts_frames_not_batches() -> None:
    rows = [
        from_latencies("network", 8, [cpu_count() * 0.008])
    ]  # 1 ms per frame with all cores busy
    assert bottleneck(rows, pipeline_runs(900, 1000)) == (
        "device-bound: the network keeps the processor busy for 90% of the time; "
        "reading a file costs 10% of the rate from memory"
    )
    assert bottleneck(rows, pipeline_runs(250, 1000)) == (
        "host-bound: the network keeps the processor busy for only 25% of the time; the longest "
        "other stage is capture with 2.00 ms per frame, and reading a file costs 75% of the rate "
        "from memory"
    )
    on_gpu = [from_latencies("network", 8, [1.0]), from_latencies(STAGE_NAMES["gpu"], 8, [0.008])]
    assert bottleneck(on_gpu, pipeline_runs(800, 800)).startswith("device-bound: the network keep")
    assert "GPU busy for 80%" in bottleneck(on_gpu, pipeline_runs(800, 800))


def test_one_file_as_several_sources(tiny: Path, tmp_path: Path) -> None:
    video = make_video(tmp_path / "clip.mp4", [1001 * k for k in range(8)])
    sources: list[Source] = [RenamedSource(open_source(video), name) for name in "ab"]
    with open_backend(tiny, "onnxruntime", BackendOptions()) as backend:
        pipeline = Pipeline(sources, backend)
        seen = [(result.frame.source, result.frame.index) for result in pipeline]
    assert sorted(seen) == [(name, index) for name in "ab" for index in range(8)]
    assert pipeline.statistics.total_seconds("network") > 0
    assert pipeline.statistics.total_seconds("unknown") == 0


def test_stages_of_a_single_launch_are_timed_separately(tiny: Path) -> None:
    class Whole:
        max_batch = 2

        def submit(self, frames: Sequence[Frame]) -> PendingBatch:
            return PendingBatch(tuple(frames), timings={"gpu": 0.004})

        def collect(self, batch: PendingBatch) -> list[Detections]:
            return [Detections.empty()] * len(batch.frames)

        def stage_seconds(self, frames: Sequence[Frame]) -> dict[str, float]:
            return {"describe": 1.0, "preprocess": 0.001, "network": 0.002, "detect": 0.003}

    images = [np.zeros((8, 8, 3), np.uint8)]
    rows = time_batches(Whole(), Case(tiny, "tensorrt", images, 0.0))  # type: ignore[arg-type]
    assert [(row.what, row.value) for row in rows[:-1]] == [
        ("pre-processing", 1),
        ("network", 2),
        ("decode + NMS", 3),
        ("whole batch on the GPU", 4),
    ]


def test_spec_of_an_engine_comes_from_its_backend(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tmp_path / "plan.engine"
    engine.write_bytes(b"plan")

    def opened(model: Path, name: str, options: BackendOptions) -> Backend:
        assert model == engine
        return open_backend(tiny, "onnxruntime", options)

    for module in (benchmark, runs):
        monkeypatch.setattr(module, "open_backend", opened)
    result = benchmark.run(BenchmarkOptions(engine, "demo:64x48", paced=500, duration=0.02))
    assert result["model"]["name"] == "tiny"
    assert result["model"]["sha256"] == hashlib.sha256(b"plan").hexdigest()
