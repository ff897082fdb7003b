from __future__ import annotations

import json
import signal
import time
from fractions import Fraction
from pathlib import Path

import cv2
import pytest

from tests.cli.program import run, start
from tests.tiny import bright_cell
from tests.videos import make_video, readable, stamps_of


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, cell in enumerate([(0, 1), (2, 3)]):
        cv2.imwrite(str(folder / f"{number}.png"), bright_cell(cell))
    return folder


def test_photos_to_json_and_folder(tiny: Path, photos: Path, tmp_path: Path) -> None:
    finished = run(
        "--source", photos, "--model", tiny, "--json", "-", "--output", tmp_path / "out",
        "--stats", tmp_path / "stats.json",
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    lines = [json.loads(line) for line in finished.stdout.splitlines()]
    assert [line["frame"] for line in lines] == [0, 1]
    assert set(lines[0]) == {
        "source", "file", "frame", "time", "width", "height", "detections",
    }  # fmt: skip
    (detection,) = lines[0]["detections"]
    assert (detection["label"], detection["class_id"]) == ("bright", 1)
    assert detection["score"] > 0.9
    assert detection["box"] == pytest.approx([40, 0, 80, 30], abs=0.01)
    (detection,) = lines[1]["detections"]
    assert detection["box"] == pytest.approx([120, 60, 160, 90], abs=0.01)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "1.png"]
    stats = json.loads((tmp_path / "stats.json").read_text())
    assert (stats["captured"], stats["processed"]) == (2, 2)
    assert set(stats) == {
        "backend", "model", "captured", "processed", "dropped", "losses", "fps", "seconds",
        "latency_ms", "sources",
    }  # fmt: skip
    stages = {"capture", "wait", "preprocess", "network", "postprocess", "sinks", "end_to_end"}
    assert set(stats["latency_ms"]) == stages
    assert all(set(one) == {"p50", "p90", "p99", "max"} for one in stats["latency_ms"].values())


def test_video_keeps_its_time_stamps(tiny: Path, tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4", [0, 1001, 3003, 4004])
    finished = run("detect", "--video", video, "--model", tiny, "--output", tmp_path / "o.mp4")
    assert finished.returncode == 0, finished.stderr
    assert "4 frames" in finished.stderr
    assert stamps_of(tmp_path / "o.mp4") == stamps_of(video)


def test_several_sources_into_a_folder(tiny: Path, tmp_path: Path) -> None:
    first = make_video(tmp_path / "a.mp4", [0, 1001])
    finished = run(
        "--video", first, "--source", "demo:160x96,frames=3", "--model", tiny,
        "--output", tmp_path / "out", "--json", tmp_path / "o.jsonl",
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert len(list((tmp_path / "out").glob("*.mp4"))) == 2
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert len(lines) == 5
    assert [line["frame"] for line in lines if "demo" in line["source"]] == [0, 1, 2]


def test_max_frames_classes_and_thresholds(tiny: Path, photos: Path) -> None:
    finished = run(
        "--source", photos, "--model", tiny, "--json", "-", "--max-frames", 1,
        "--score-threshold", "1", "--classes", "Bright",
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    (line,) = finished.stdout.splitlines()
    assert json.loads(line)["detections"] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_a_signal(tiny: Path, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "o.mp4"
    process = start(
        "--source", "demo:160x96@30,frames=0", "--model", tiny, "--output", out, "--json", "-",
        "--stats", tmp_path / "s.json",
    )  # fmt: skip
    assert process.stdout is not None
    lines = [json.loads(process.stdout.readline()) for _ in range(20)]
    stopped_at = time.monotonic()
    process.send_signal(number)
    lines += [
        json.loads(line) for line in process.stdout
    ]  # communicate() would lose buffered lines
    assert process.stderr is not None
    messages = process.stderr.read()
    process.wait(20)
    assert time.monotonic() - stopped_at < 2
    assert process.returncode == 128 + number, messages
    frames, problem = readable(out)
    assert problem == ""
    assert len(frames) == len(lines)
    assert stamps_of(out)[:3] == [Fraction(k, 30) for k in range(3)]
    assert json.loads((tmp_path / "s.json").read_text())["processed"] == len(lines)


def test_without_a_display_there_must_be_an_output(tiny: Path, tmp_path: Path) -> None:
    demo = ("--source", "demo:160x96,frames=2", "--model", tiny)
    for arguments in ((), ("--show",)):
        finished = run(*demo, *arguments)
        assert finished.returncode == 2
        assert finished.stderr.splitlines()[-1] == (
            "realtime-ssd: no window can be shown: there is no display; add an output, such as "
            "--output FILE, --json FILE, --csv FILE, or --json - for standard output"
        )
    finished = run(*demo, "--show", "--stats", tmp_path / "s.json")
    assert finished.returncode == 0
    assert "running without a window: there is no display" in finished.stderr


def test_version_help_and_subcommands() -> None:
    assert run("--version").stdout.strip() == "0.1.0"
    finished = run("--help")
    assert all(
        word in finished.stdout for word in ("detect", "models", "doctor", "train", "import")
    )
    assert "Detect objects in cameras, videos, streams and photos." in finished.stdout
    assert "realtime-ssd demo --output street.mp4" in finished.stdout
    assert run().returncode == 0


def test_models_and_doctor(tmp_path: Path) -> None:
    finished = run("models", models=tmp_path)
    assert finished.returncode == 0
    assert "ssd300_vgg16_coco" in finished.stdout
    assert "b556d3b4" in finished.stdout
    finished = run("doctor")
    assert finished.returncode == 0
    assert "ONNX Runtime" in finished.stdout
    assert "NVIDIA driver" in finished.stdout
    assert "there is no display  -> " in finished.stdout
