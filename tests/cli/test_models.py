"""`realtime-ssd models`: information, adding and removing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from realtime_ssd.cli import main


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of models; it does not exist yet."""
    monkeypatch.setenv("REALTIME_SSD_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Return the exit status and all output of `realtime-ssd models`."""
    with pytest.raises(SystemExit) as raised:
        main(["models", *map(str, arguments)])
    captured = capsys.readouterr()
    return int(str(raised.value.code or 0)), captured.out + captured.err


@pytest.mark.usefixtures("models")
def test_info_has_classes_input_thresholds_license_and_origin(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, text = call(capsys, "info", "street")
    rows = dict(line.split(None, 1) for line in text.splitlines())
    assert status == 0
    assert rows["classes"] == "6: person, cyclist, car, bus, truck, traffic light"
    assert rows["input"].startswith("384 x 224 pixels, BGR")
    assert rows["thresholds"].startswith("score 0.5, IoU 0.45")
    assert rows["license"] == "Apache-2.0"
    assert "synthetic street" in rows["origin"]
    status, text = call(capsys, "info", "ssd_mobilenet_v1_coco")
    assert status == 0
    assert "not installed; run realtime-ssd models pull ssd_mobilenet_v1_coco" in text
    assert "storage.googleapis.com" in text


def test_added_model_is_found_by_name_until_it_is_removed(
    tiny: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(capsys, "add", tiny, "--name", "mine")[0] == 0
    assert (models / "mine.onnx").read_bytes() == tiny.read_bytes()
    assert "bright" in call(capsys, "info", "mine")[1]
    status, text = call(capsys, "add", tiny, "--name", "mine")
    assert status == 2
    assert "there is a model 'mine' already; set --overwrite" in text
    assert call(capsys, "add", tiny, "--name", "mine", "--overwrite")[0] == 0
    assert call(capsys, "remove", "mine")[0] == 0
    assert list(models.iterdir()) == []
    status, text = call(capsys, "remove", "mine")
    assert (status, "there is no local model 'mine'; there are none" in text) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("add", "none.onnx"), "model file 'none.onnx' does not exist"),
        (("add", "tiny.onnx", "--name", "../x"), "--name must have letters, digits"),
        (("add", "tiny.onnx", "--name", "street"), "'street' is a model of this program"),
        (("add", "photo.png"), "is not a readable ONNX file"),
        (("remove", "street"), "'street' is part of the program and cannot be removed"),
        (("info", "none.onnx"), "model file 'none.onnx' does not exist"),
    ],
)
def test_wrong_names_and_files_are_errors(
    tiny: Path,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    shutil.copy(tiny, tmp_path / "tiny.onnx")
    (tmp_path / "photo.png").write_bytes(b"no model")
    monkeypatch.chdir(tmp_path)
    status, text = call(capsys, *arguments)
    assert status in (1, 2)
    assert message in text
    assert text.count("\n") == 1
    assert not models.exists()
