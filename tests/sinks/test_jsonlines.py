"""JSON lines are whole, and there as soon as they are written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_START = """
import resource, signal, sys
import numpy as np
from realtime_ssd import Detections, Frame, RealtimeSSDError
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.jsonlines import JsonSink
sink = JsonSink(sys.argv[1])
def write(number):
    image = np.zeros((48, 64, 3), np.uint8)
    sink.write(FrameResult(Frame(image, number, "x", 40 * number), Detections.empty()))
"""


@pytest.mark.parametrize("target", ["-", "lines.jsonl"])
def test_a_line_is_there_at_once(tmp_path: Path, target: str) -> None:
    program = _START + "write(0)\nprint('next', file=sys.stderr, flush=True)\nsys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, target],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"},
    ) as writer:
        assert writer.stderr is not None
        assert writer.stdout is not None
        assert writer.stderr.readline() == "next\n"
        line = writer.stdout.readline() if target == "-" else (tmp_path / target).read_text()
        assert json.loads(line) == {
            "source": "x", "frame": 0, "time": 0.0, "width": 64, "height": 48, "detections": [],
        }  # fmt: skip
        writer.communicate()


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    program = _START + (
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "try:\n"
        "    for number in range(1000): write(number)\n"
        "except RealtimeSSDError as error: print(error)\n"
    )
    path = tmp_path / "o.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    assert "the lines before are complete" in done.stdout
    text = path.read_text()
    assert text.endswith("}\n")
    frames = [json.loads(line)["frame"] for line in text.splitlines()]
    assert frames == list(range(len(frames)))
    assert len(text) > 4500
