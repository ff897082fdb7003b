"""JSON lines are complete, and readable as soon as they are written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from realtime_ssd import Detections, Frame
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.jsonlines import JsonSink

PRELUDE = """
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
def test_line_is_readable_immediately(tmp_path: Path, target: str) -> None:
    program = PRELUDE + "write(0)\nprint('next', file=sys.stderr, flush=True)\nsys.stdin.read()"
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


def test_full_disk_leaves_complete_lines(tmp_path: Path) -> None:
    program = PRELUDE + (
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "try:\n"
        "    for number in range(1000): write(number)\n"
        "except RealtimeSSDError as error: print(error)\n"
        "sink.close()\n"
    )
    path = tmp_path / "o.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == (
        f"writing to '{path}' failed (File too large); the lines written before are complete\n"
    )
    text = path.read_text()
    assert text.endswith("}\n")
    frames = [json.loads(line)["frame"] for line in text.splitlines()]
    assert frames == list(range(len(frames)))
    assert len(text) > 4500


def result(name: str = "") -> FrameResult:
    frame = Frame(np.zeros((4, 8, 3), np.uint8), 7, "camera", 1234, name=name)
    detections = Detections(
        np.array([[1, 2, 3.25, 4]], np.float32),
        np.array([0.5], np.float32),
        np.array([1], np.int32),
        ("background", "car"),
    )
    return FrameResult(frame, detections)


def test_line_has_the_detections_and_the_name_of_the_image(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    with JsonSink(str(path)) as sink:
        sink.write(result())
        sink.write(result("a.png"))
    first, second = map(json.loads, path.read_text().splitlines())
    assert first["source"] == "camera"
    assert (second["source"], second["file"]) == ("camera", "a.png")
    assert not {"file", "captured_at"} & set(first)
    assert (first["frame"], first["time"], first["width"], first["height"]) == (7, 1.234, 8, 4)
    assert first["detections"] == [
        {"label": "car", "class_id": 1, "score": 0.5, "box": [1.0, 2.0, 3.25, 4.0]}
    ]


def test_file_without_lines_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    with JsonSink(str(path)) as sink:
        assert path.exists()
    assert not path.exists()
    sink.close()


def test_existing_file_is_kept_unless_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    path.write_text("existing\n")
    with pytest.raises(UsageError, match="exists; set `overwrite` to replace it"):
        JsonSink(str(path))
    assert path.read_text() == "existing\n"
    with JsonSink(str(path), overwrite=True) as sink:
        sink.write(result())
    assert json.loads(path.read_text())["frame"] == 7


def test_live_sources_have_the_wall_clock_of_the_capture(tmp_path: Path) -> None:
    captured = datetime.now(timezone.utc) - timedelta(seconds=5)
    found = result()
    found.live = True
    found.frame = replace(found.frame, captured_at=time.monotonic() - 5)
    path = tmp_path / "o.jsonl"
    with JsonSink(str(path)) as sink:
        sink.write(found)
    text = json.loads(path.read_text())["captured_at"]
    assert text.endswith("Z")
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    assert abs((moment - captured).total_seconds()) < 0.5
