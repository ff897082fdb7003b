"""Sources on the command line, as a user names them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import pytest

from realtime_ssd.cli import with_default_command
from realtime_ssd.cli.inputs import parse_roi, parse_seconds
from realtime_ssd.core.errors import UsageError
from tests.cli.program import ENVIRONMENT, run
from tests.tiny import bright_cell
from tests.videos import make_video, readable


def json_lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_folder_of_photos_and_videos_as_an_argument(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    clip = make_video(folder / "0.mp4", [0, 1001, 2002])
    for number in range(1, 7):
        shutil.copy(clip, folder / f"{number}.mp4")
    cv2.imwrite(str(folder / "photo.png"), bright_cell((1, 1)))
    finished = run(folder, "--model", tiny, "--json", "-", "--output", tmp_path / "out")
    assert finished.returncode == 0, finished.stderr
    counts = Counter(line["source"] for line in json_lines(finished.stdout))
    assert counts == {str(folder): 1, **{str(folder / f"{n}.mp4"): 3 for n in range(7)}}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *(f"{n}.mp4" for n in range(7)),
        "photo.png",
    ]
    assert all(len(readable(tmp_path / "out" / f"{n}.mp4")[0]) == 3 for n in range(7))


@pytest.mark.parametrize(
    "words",
    [
        ("-clip.mp4",),
        ("--source", "-clip.mp4"),
        ("detect", "./-clip.mp4"),
        ("--", "-clip.mp4"),
        ("clips/*.mp4", "--overwrite", "-clip.mp4"),
    ],
)
def test_names_with_a_leading_hyphen(tiny: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    clip = make_video(tmp_path / "-clip.mp4", [0, 1001])
    (tmp_path / "clips").mkdir()
    shutil.copy(clip, tmp_path / "clips" / "a.mp4")
    options = ("--json", "-", "--model", tiny)
    command = words[:1] if words[0] == "detect" else ()
    finished = run(*command, *options, *words[len(command) :], cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert len(finished.stdout.splitlines()) == (4 if "clips/*.mp4" in words else 2)


def test_part_of_a_video_in_a_rectangle(tiny: Path, tmp_path: Path) -> None:
    clip = make_video(tmp_path / "a.mp4", [1001 * k for k in range(60)])
    finished = run(
        clip, "--model", tiny, "--json", "-", "--start", "0:00:01", "--end", "1.5",
        "--frame-step", "5", "--roi", "40,20,80,60", "--score-threshold", "0",
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    lines = json_lines(finished.stdout)
    assert [line["frame"] for line in lines] == [0, 5, 10]
    assert [line["time"] for line in lines] == pytest.approx([1.001, 1.167833, 1.334667], abs=1e-5)
    assert {(line["width"], line["height"]) for line in lines} == {(160, 120)}


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare of util-linux")
@pytest.mark.parametrize("home", [None, "/nonexistent", "READ_ONLY"])
def test_model_by_path_needs_no_home(tiny: Path, tmp_path: Path, home: str | None) -> None:
    environment = {k: v for k, v in ENVIRONMENT.items() if k != "HOME" and "XDG" not in k}
    if home is not None:
        read_only = tmp_path / "home"
        read_only.mkdir(mode=0o555)
        environment["HOME"] = str(read_only) if home == "READ_ONLY" else home
    model = tmp_path / "tiny.onnx"
    shutil.copy(tiny, model)
    words = [sys.executable, "-m", "realtime_ssd", "demo:64x64,frames=1", "--json", "-"]
    unshare = ["unshare", "-U", "--map-user=12345", "--map-group=12345"]
    for options in (["--model", str(model)], []):
        finished = subprocess.run(
            [*unshare, *words, *options],
            env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if "unshare failed" in finished.stderr:
            pytest.skip("user namespaces are disabled here")
        assert finished.returncode == 0, finished.stderr
        assert "telemetry" not in finished.stderr
        assert len(finished.stdout.splitlines()) == 1


def test_models_without_a_home_is_one_sentence() -> None:
    program = (
        "import os, sys; os.environ.pop('HOME', None); import os.path\n"
        "import platformdirs\n"
        "def fail(*_): raise RuntimeError('no home')\n"
        "platformdirs.user_data_path = fail\n"
        "from realtime_ssd.cli import main\n"
        "main(['models', 'pull', 'ssd_mobilenet_v1_coco'])\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program],
        env={k: v for k, v in ENVIRONMENT.items() if k != "REALTIME_SSD_MODELS"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert finished.returncode == 2
    assert "this user has no home folder; set HOME, or REALTIME_SSD_MODELS" in finished.stderr


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1:30", 90), ("0:01:30.5", 90.5), (".5", 0.5), ("100:00", 6000), ("1:2:3", 3723)],
)
def test_times(text: str, seconds: float) -> None:
    assert parse_seconds("start", text) == seconds


@pytest.mark.parametrize("text", ["", "x", "-1", "1:2:3:4", "1h", "nan", "inf", "1e5", "1:", ":1"])
def test_malformed_times(text: str) -> None:
    with pytest.raises(UsageError, match="`start` must be a time in seconds or as"):
        parse_seconds("start", text)


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,0,4", "-1,2,3,4", "a,b,c,d", "1,2,3,4,5"])
def test_malformed_rectangles(text: str) -> None:
    assert parse_roi("1, 2,3,4") == (1, 2, 3, 4)
    with pytest.raises(UsageError, match="`roi` must be x,y,width,height in pixels"):
        parse_roi(text)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-"], ["/dev/stdin"]),
        (["--hide-scores", "-"], ["--hide-scores", "/dev/stdin"]),
        (["--json", "-", "-"], ["--json", "-", "/dev/stdin"]),
        (["detect", "--csv", "-", "a.mp4"], ["--csv", "-", "a.mp4"]),
        (["--source", "-"], ["--source", "-"]),
        (["-missing.mp4", "--no-such"], ["-missing.mp4", "--no-such"]),
    ],
)
def test_hyphen_is_standard_input_except_as_a_value(words: list[str], expected: list[str]) -> None:
    assert with_default_command(words) == ["detect", *expected]
