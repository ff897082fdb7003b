"""`realtime-ssd benchmark` as a user runs it; how fast it is is nobody's business here."""

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


def test_everything_is_measured(tiny: Path, tmp_path: Path) -> None:
    first = tmp_path / "first.json"
    picture = tmp_path / "chart.png"
    words = ("--model", tiny, "--source", "demo:160x96", "--batch", "1,3", "--streams", "2")
    done = run("benchmark", *words, *SHORT, "--json", first, "--plot", picture)
    assert done.returncode == 0, done.stderr
    result = json.loads(first.read_text())
    assert result["model"]["sha256"] == hashlib.sha256(tiny.read_bytes()).hexdigest()
    assert result["machine"]["cores"] >= 1
    assert result["picture"] == [160, 96]
    got = {(row["what"], row["batch"]): row for row in result["rows"]}
    single = ("pre-processing", "network", "decode + NMS", "one after the other")
    for batch in (1, 3):
        parts = [got[name, batch]["value"] for name in single]
        assert all(value > 0 for value in parts)
        assert sum(parts[:3]) < 1.5 * parts[3]
        assert got["whole loop from memory", batch]["unit"] == "fps"
    assert got["whole loop from file", 1]["value"] > 0
    paced = got["paced at 60 FPS", 1]["percentiles"]
    assert 0 < paced["p50"] <= paced["p90"] <= paced["p99"] <= paced["max"]
    assert result["verdict"].split(":")[0] in ("device-bound", "host-bound")
    assert result["verdict"].split(":")[0] in done.stdout
    assert set(result["clocks"]) == {"back to back", "paced"}
    chart = cv2.imread(str(picture))
    assert chart.std() > 10

    again = run("benchmark", *words, *SHORT, "--against", first)
    assert again.returncode == 0, again.stderr
    assert "times as fast" in again.stdout
    assert "not the same" not in again.stdout


def test_a_file_and_other_precisions(tiny: Path, tmp_path: Path) -> None:
    video = make_video(tmp_path / "clip.mp4", [1001 * k for k in range(40)])
    output = tmp_path / "out.json"
    for precision in ("fp16", "int8"):
        done = run(
            "benchmark", "--model", tiny, "--source", video, "--precision", precision, *SHORT,
            "--json", output, "--overwrite",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads(output.read_text())["precision"] == precision


def test_a_batch_that_cannot_be_is_told_at_once(tiny: Path, tmp_path: Path) -> None:
    model = onnx.load(str(tiny))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    fixed = tmp_path / "fixed.onnx"
    onnx.save(model, str(fixed))
    done = run("benchmark", "--model", fixed, "--batch", "1,8", *SHORT)
    assert done.returncode == 2
    assert "has a fixed batch of 1, so --batch cannot be 8" in done.stderr
    assert "one after the other" not in done.stderr


def test_photos_are_put_in_a_row(tiny: Path, tmp_path: Path) -> None:
    photos, output = tmp_path / "photos", tmp_path / "out.json"
    photos.mkdir()
    for name, size in (("a.png", (64, 96, 3)), ("b.png", (32, 48, 3))):
        cv2.imwrite(str(photos / name), np.full(size, 90, np.uint8))
    done = run("benchmark", "--model", tiny, "--source", photos, *SHORT, "--json", output)
    assert done.returncode == 0, done.stderr
    rows = {row["what"]: row for row in json.loads(output.read_text())["rows"]}
    assert rows["whole loop from file"]["value"] > 0
    assert 0 < rows["paced at 60 FPS"]["fps"] < 75


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("--batch takes sizes such as 1,8,32, not 'x'", ("--batch", "x")),
        ("--batch takes sizes such as 1,8,32, not '²'", ("--batch", "²")),
        ("--batch needs sizes of at least 1", ("--batch", "0")),
        ("--batch takes at most 1024 frames", ("--batch", "1,99999999")),
        ("--streams must be at least 1", ("--streams", "0")),
        ("--paced must lie", ("--paced", "0")),
        ("--duration must lie", ("--duration", "0")),
        ("precision 'fp8' is unknown", ("--precision", "fp8")),
        ("does not exist", ("--source", "missing.mp4")),
        ("cannot be read", ("--against", "missing.json")),
        ("there is no folder", ("--json", "missing/x.json")),
        ("it is a folder", ("--json", "/", "--overwrite")),
        ("--plot draws .png, .svg, .pdf, not 'x.json'", ("--plot", "x.json")),
        ("is given for two results", ("--json", "x.png", "--plot", "x.png")),
        ("is live", ("--source", "http://127.0.0.1:9/live")),
    ],
)
def test_wrong_words_are_told_before_anything_is_measured(
    tiny: Path, text: str, words: tuple[str, ...]
) -> None:
    done = run("benchmark", "--model", tiny, *words)
    assert done.returncode == 2, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert "one after the other" not in done.stderr


def test_the_table_fits_80_columns(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENT, "COLUMNS", "80")
    done = run("benchmark", "--model", tiny, "--source", "demo:160x96", "--batch", "2", *SHORT)
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    for name in ("pre-processing", "whole loop from memory", "whole loop from file"):
        (line,) = (line for line in lines if line.startswith(name))
        batch, *figures = line.removeprefix(name).split()
        assert batch == "2"
        assert len(figures) == 6  # FPS, ms, ±, p90, p99, max
        assert float(figures[1]) <= float(figures[3]) <= float(figures[4]) <= float(figures[5])


def test_files_that_are_none_of_ours(tiny: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text("[1, 2]")
    done = run("benchmark", "--model", tiny, "--against", other)
    assert done.returncode == 2
    assert "is no result of realtime-ssd benchmark" in done.stderr
    done = run("benchmark", "--model", tiny, "--json", other)
    assert done.returncode == 2
    assert other.read_text() == "[1, 2]"
