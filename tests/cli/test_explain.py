"""`realtime-ssd explain`: text, sheet, JSON and errors."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from realtime_ssd.annotators.explanation_sheet import MAX_TILES, draw_explanation
from realtime_ssd.annotators.palette import color_of
from realtime_ssd.cli import main
from realtime_ssd.core.explanation import explain
from tests.core.test_explanation import HEIGHT, SPEC, WIDTH, outputs
from tests.tiny import bright_cell


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """One bright cell, and one of medium brightness, which is below the threshold."""
    image = bright_cell((1, 2))
    image[90:120, 0:40] = 120
    path = tmp_path / "photo [1].png"
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return path


def run(*arguments: object) -> int:
    """Run the program and return its exit status."""
    with pytest.raises(SystemExit) as stopped:
        main([*map(str, arguments)])
    return int(str(stopped.value.code or 0))


def test_a_detection_and_a_near_miss_are_explained(
    tiny: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet, file = tmp_path / "out" / "sheet.png", tmp_path / "out.json"
    assert run("explain", photo, "--model", tiny, "--output", sheet, "--json", file) == 0
    output = capsys.readouterr().out
    assert "1  bright 1.000" in output
    assert "feature map 1 of 1 (4 x 4 cells), row 2, column 3" in output
    assert "default box 1 of 1: 40 x 30 pixels, IoU 1.00" in output
    assert "it suppressed no other box" in output
    assert "just below the threshold:\na  bright 0.2" in output
    values = json.loads(file.read_text())
    assert values["detections"][0]["candidate"]["box"] == [80, 30, 120, 60]
    assert values["near_misses"][0]["box"] == [0, 90, 40, 120]
    image = cv2.imread(str(sheet))
    assert image is not None
    assert image.shape[1] == 1500
    assert (image == color_of(1)).all(axis=2).sum() > 500
    assert run("explain", photo, "--model", tiny, "--output", sheet) == 2
    assert "set --overwrite" in capsys.readouterr().err
    assert run("explain", photo, "--model", tiny, "--output", sheet, "--overwrite") == 0


def test_thresholds_apply(tiny: Path, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain", photo, "--model", tiny, "--score-threshold", "bright=0.1") == 0
    output = capsys.readouterr().out
    assert "2  bright 0.2" in output
    assert "below the threshold" not in output
    image = np.zeros((60, 80, 3), np.uint8)
    cv2.imwrite(str(photo.with_name("dark.png")), image)
    assert run("explain", photo.with_name("dark.png"), "--model", tiny) == 0
    assert "nothing was detected" in capsys.readouterr().out


ERRORS = {
    "no image": (("explain", "{}/none.png"), "does not exist"),
    "no picture": (("explain", "{}/text.png"), "text.png"),
    "no class": (("explain", "{}/photo.png", "--classes", "cow"), "class 'cow' is unknown"),
    "bad threshold": (("explain", "{}/photo.png", "--score-threshold", "2"), "between 0 and 1"),
    "bad suffix": (("explain", "{}/photo.png", "--output", "{}/a.pdf"), "not an image file"),
    "engine": (("explain", "{}/photo.png", "--model", "{}/a.engine"), "not an ONNX file"),
    "folder": (("explain", "{}"), "does not exist; use an image file"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_one_sentence(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), bright_cell((0, 0)))
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "a.engine").touch()
    arguments, message = ERRORS[case]
    model = [] if case == "engine" else ["--model", str(tiny)]
    status = run(*(text.format(tmp_path) for text in arguments), *model)
    assert status == (1 if case == "no picture" else 2)
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "a.pdf").exists()


def test_sheets_of_many_detections_and_odd_sizes() -> None:
    explanation = explain(SPEC, *outputs(SPEC, 0), WIDTH, HEIGHT)
    assert len(explanation.detections) > MAX_TILES
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    sheet = draw_explanation(image, explanation, "größe 犬 $")
    assert sheet.shape[1] == 1500
    assert not image.flags.writeable or (image == 90).all()
    for width, height in ((1, 1), (3000, 20), (20, 3000)):
        small = explain(SPEC, *outputs(SPEC, 1), width, height)
        sheet = draw_explanation(np.zeros((height, width, 3), np.uint8), small, "")
        assert sheet.shape[1] == 1500
        assert sheet.shape[0] < 4000
