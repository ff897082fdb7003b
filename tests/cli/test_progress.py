"""Progress lines, the summary and the total number of frames."""

from __future__ import annotations

from pathlib import Path

import pytest

from realtime_ssd.cli import main
from realtime_ssd.cli.progress import RunProgress, summary
from realtime_ssd.core.metrics import Statistics


@pytest.mark.parametrize(
    ("arguments", "total"),
    [
        (("--source", "demo:160x96,frames=5"), " of 5 frames"),
        (("--source", "demo:160x96,frames=5", "--max-frames", "3"), " of 3 frames"),
        (("--source", "demo:160x96,frames=2", "--max-frames", "9"), " of 2 frames"),
        (
            ("--source", "demo:160x96,frames=5", "--source", "demo:96x96,frames=4"),
            " of 9 frames",
        ),
        (
            (
                *("--source", "demo:160x96,frames=5", "--source", "demo:96x96,frames=2"),
                *("--max-frames", "3"),
            ),
            " of 5 frames",
        ),
        (("--source", "demo:160x96,frames=0", "--max-frames", "4"), " of 4 frames"),
    ],
)
def test_total_frames_of_a_run(
    tiny: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    total: str,
) -> None:
    monkeypatch.setattr("realtime_ssd.cli.progress.PLAIN_INTERVAL", 0.0)
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--model", str(tiny), "--json", "/dev/null"])
    assert not caught.value.code
    lines = [line for line in capsys.readouterr().err.splitlines() if " frames, " in line]
    progress, last = lines[:-1], lines[-1]
    assert progress
    assert all(total in line for line in progress)
    assert last.split()[0] == total.split()[1]


def test_progress_of_live_sources_shows_latency_and_drops(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realtime_ssd.cli.progress.PLAIN_INTERVAL", 0.0)
    statistics = Statistics(("cam",))
    with RunProgress(statistics, None, live=True) as progress:
        for _ in range(2):
            statistics.on_frame("cam", "captured")
        statistics.on_frame("cam", "replaced")
        statistics.on_stage("cam", "end_to_end", 0.1)
        statistics.on_frame("cam", "processed")
        progress.update()
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "1 frames, 0.0 FPS, latency 100 ms, 1 dropped"


def test_summary_names_latency_only_for_live_sources() -> None:
    statistics = Statistics(("cam",))
    statistics.on_frame("cam", "captured")
    statistics.on_stage("cam", "end_to_end", 0.25)
    statistics.on_frame("cam", "processed")
    assert summary(statistics, live=False).endswith("FPS, none dropped")
    assert "latency p50 250.0 ms, p99 250.0 ms" in summary(statistics, live=True)
    statistics.on_frame("cam", "captured")
    statistics.on_frame("cam", "stopped")
    assert summary(statistics, live=False).endswith("FPS, dropped: 1 stopped")
    assert summary(statistics, live=False).startswith("1 frame, ")
