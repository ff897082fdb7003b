"""Signals at any moment of a run: no traceback, no hang, and every file can be read."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import pytest

from tests.cli.program import ENVIRONMENT

START = "import os, realtime_ssd.__main__ as program\nos.write(1, b'>')\nprogram.main()\n"
SEED = int(os.environ.get("REALTIME_SSD_FUZZ_SEED", "0"))
TRIES = int(os.environ.get("REALTIME_SSD_FUZZ_TRIES", "67"))  # of each signal
OUTPUTS = ("--output", "out.mp4", "--json", "out.jsonl", "--stats", "stats.json", "--overwrite")


def run_until(number: int, delay: float, folder: Path, model: Path) -> tuple[int, str, float]:
    """Return status, errors and seconds of a run that gets a signal after a delay."""
    source = ("--source", "demo:96x64,frames=60", "--model", str(model), "--backend", "onnxruntime")
    process = subprocess.Popen(
        [sys.executable, "-c", START, *source, *OUTPUTS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        cwd=folder,
    )
    assert process.stdout is not None
    assert process.stdout.read(1) == b">"
    started = time.monotonic()
    timer = threading.Timer(delay, process.send_signal, [number])
    timer.start()
    _, errors = process.communicate(timeout=60)
    timer.cancel()
    return process.returncode, errors.decode(), time.monotonic() - started


def check_files(folder: Path) -> int:
    """Check that all files can be read, and return the number of frames in the video."""
    frames = 0
    video, lines, stats = (folder / name for name in ("out.mp4", "out.jsonl", "stats.json"))
    if video.exists() and video.stat().st_size:
        with av.open(str(video)) as container:
            if container.streams.video:
                frames = sum(1 for _ in container.decode(video=0))
    if lines.exists():
        for line in lines.read_text().splitlines():
            json.loads(line)
    if stats.exists():
        json.loads(stats.read_text())
    assert list(folder.glob("*partial*")) == []
    return frames


@pytest.mark.nightly
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_at_random_moments(name: str, tiny: Path, tmp_path: Path) -> None:
    number = getattr(signal, name)
    status, errors, whole = run_until(number, 60, tmp_path, tiny)
    assert status == 0, errors
    assert check_files(tmp_path) == 60
    chance = random.Random(f"{SEED} {name}")
    interrupted = finished = 0
    for _ in range(TRIES):
        for file in tmp_path.iterdir():
            file.unlink()
        delay = chance.uniform(0, whole * 1.1)
        status, errors, _ = run_until(number, delay, tmp_path, tiny)
        shown = f"{name} after {delay:.3f} s: status {status}, {errors}"
        assert "Traceback" not in errors, shown
        assert "rror" not in errors, shown
        assert status in (0, 128 + number, -number), shown
        finished += check_files(tmp_path) == 60
        interrupted += status != 0
    assert interrupted > TRIES // 4
