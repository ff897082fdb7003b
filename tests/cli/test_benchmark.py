"""`realtime-ssd benchmark` as a user runs it; the speed itself is not tested."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from tests.cli.program import ENVIRONMENT, run
from tests.videos import make_video

SHORT = ("--duration", "0.2", "--paced", "60")


def test_all_measurements_are_reported_and_compared(tiny: Path, tmp_path: Path) -> None:
    first = tmp_path / "first.json"
    picture = tmp_path / "chart.png"
    arguments = ("--model", tiny, "--source", "demo:160x96", "--batch", "1,3", "--streams", "2")
    finished = run("benchmark", *arguments, *SHORT, "--json", first, "--plot", picture)
    assert finished.returncode == 0, finished.stderr
    result = json.loads(first.read_text())
    assert result["model"]["sha256"] == hashlib.sha256(tiny.read_bytes()).hexdigest()
    assert result["machine"]["cores"] >= 1
    assert result["picture"] == [160, 96]
    rows = {(row["what"], row["batch"]): row for row in result["rows"]}
    single = ("pre-processing", "network", "decode + NMS", "one batch at a time")
    for batch in (1, 3):
        parts = [rows[name, batch]["value"] for name in single]
        assert all(value > 0 for value in parts)
        assert sum(parts[:3]) < 1.5 * parts[3]
        assert rows["whole pipeline from memory", batch]["unit"] == "fps"
    assert rows["whole pipeline from file", 1]["value"] > 0
    paced = rows["paced at 60 FPS", 1]["percentiles"]
    assert 0 < paced["p50"] <= paced["p90"] <= paced["p99"] <= paced["max"]
    assert result["verdict"].split(":")[0] in ("device-bound", "host-bound")
    assert result["verdict"].split(":")[0] in finished.stdout
    assert set(result["clocks"]) == {"back to back", "paced"}
    chart = cv2.imread(str(picture))
    assert chart is not None
    assert chart.std() > 10

    again = run("benchmark", *arguments, *SHORT, "--against", first)
    assert again.returncode == 0, again.stderr
    assert "speed ratio" in again.stdout
    assert "different in the two results" not in again.stdout


def test_video_file_and_other_precisions(tiny: Path, tmp_path: Path) -> None:
    video = make_video(tmp_path / "clip.mp4", [1001 * k for k in range(40)])
    output = tmp_path / "out.json"
    for precision in ("fp16", "int8"):
        finished = run(
            "benchmark", "--model", tiny, "--source", video, "--precision", precision, *SHORT,
            "--json", output, "--overwrite",
        )  # fmt: skip
        assert finished.returncode == 0, finished.stderr
        assert json.loads(output.read_text())["precision"] == precision


def test_an_impossible_batch_size_is_reported_before_any_measurement(
    tiny: Path, tmp_path: Path
) -> None:
    model = onnx.load(str(tiny))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    fixed = tmp_path / "fixed.onnx"
    onnx.save(model, str(fixed))
    finished = run("benchmark", "--model", fixed, "--batch", "1,8", *SHORT)
    assert finished.returncode == 2
    assert "has a fixed batch of 1, so --batch cannot be 8" in finished.stderr
    assert "one batch at a time" not in finished.stderr


def test_photos_are_measured_as_a_video(tiny: Path, tmp_path: Path) -> None:
    photos, output = tmp_path / "photos", tmp_path / "out.json"
    photos.mkdir()
    for name, size in (("a.png", (64, 96, 3)), ("b.png", (32, 48, 3))):
        cv2.imwrite(str(photos / name), np.full(size, 90, np.uint8))
    finished = run("benchmark", "--model", tiny, "--source", photos, *SHORT, "--json", output)
    assert finished.returncode == 0, finished.stderr
    rows = {row["what"]: row for row in json.loads(output.read_text())["rows"]}
    assert rows["whole pipeline from file"]["value"] > 0
    assert 0 < rows["paced at 60 FPS"]["fps"] < 75


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("--batch must be sizes such as 1,8,32, not 'x'", ("--batch", "x")),
        ("--batch must be sizes such as 1,8,32, not '²'", ("--batch", "²")),
        ("--batch must be sizes of at least 1", ("--batch", "0")),
        ("--batch must be at most 1024, not 99999999", ("--batch", "1,99999999")),
        ("--streams must be at least 1", ("--streams", "0")),
        ("--paced must be above 0", ("--paced", "0")),
        ("--duration must be above 0", ("--duration", "0")),
        ("precision 'fp8' is unknown", ("--precision", "fp8")),
        ("does not exist", ("--source", "missing.mp4")),
        ("cannot be read", ("--against", "missing.json")),
        ("is not a folder", ("--json", "/dev/null/x.json")),
        ("it is a folder", ("--json", "/", "--overwrite")),
        ("--plot must end in .png, .svg, .pdf, not 'x.json'", ("--plot", "x.json")),
        ("is used for two outputs", ("--json", "x.png", "--plot", "x.png")),
        ("is live", ("--source", "http://127.0.0.1:9/live")),
    ],
)
def test_wrong_options_are_reported_before_any_measurement(
    tiny: Path, text: str, words: tuple[str, ...]
) -> None:
    finished = run("benchmark", "--model", tiny, *words)
    assert finished.returncode == 2, finished.stderr
    assert text in finished.stderr
    assert "Traceback" not in finished.stderr
    assert "one batch at a time" not in finished.stderr


def test_table_fits_80_columns(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENT, "COLUMNS", "80")
    finished = run("benchmark", "--model", tiny, "--source", "demo:160x96", "--batch", "2", *SHORT)
    lines = finished.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    for name in ("pre-processing", "whole pipeline from memory", "whole pipeline from file"):
        (line,) = (line for line in lines if line.startswith(name))
        batch, *figures = line.removeprefix(name).split()
        assert batch == "2"
        assert len(figures) == 6  # FPS, ms, ±, p90, p99, max
        assert float(figures[1]) <= float(figures[3]) <= float(figures[4]) <= float(figures[5])


def test_foreign_files_are_rejected(tiny: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text("[1, 2]")
    finished = run("benchmark", "--model", tiny, "--against", other)
    assert finished.returncode == 2
    assert "is not a result of realtime-ssd benchmark" in finished.stderr
    finished = run("benchmark", "--model", tiny, "--json", other)
    assert finished.returncode == 2
    assert other.read_text() == "[1, 2]"
