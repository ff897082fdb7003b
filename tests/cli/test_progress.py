"""Progress lines, the summary and the total number of frames."""

from __future__ import annotations

from pathlib import Path

import pytest

from realtime_ssd.cli import main
from realtime_ssd.cli.progress import RunProgress
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
    lines = capsys.readouterr().err.splitlines()
    summary = f"{total.split()[1]} frames in "
    assert sum(line.startswith(summary) for line in lines) == 1
    lines = [line for line in lines if " frames, " in line]
    assert lines
    assert all(total in line for line in lines)


def test_progress_of_live_sources_shows_latency_and_skipped_frames(
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
    assert line == "1 frames, 0.0 FPS, latency 100 ms, 1 skipped"
