"""`realtime-ssd import` end to end."""

from __future__ import annotations

from pathlib import Path

import onnx
from realtime_ssd_training.cli.import_ import import_model
from realtime_ssd_training.importers import caffe_model, onnx_model, pytorch_checkpoint

from tests.cli.program import run


def test_help_lists_all_families_and_file_types() -> None:
    text = " ".join((import_model.__doc__ or "").split())
    projects = {name.partition("-")[0] for name in pytorch_checkpoint.FAMILIES}
    for name in (*projects, *caffe_model.families(), *onnx_model.families()):
        assert name in text
    for suffix in (".onnx", ".tflite", ".pth", ".pt", ".safetensors", ".caffemodel"):
        assert suffix in text


def test_a_converted_model_is_refused(tiny: Path, tmp_path: Path) -> None:
    done = run("import", tiny, "--output", tmp_path / "out.onnx")
    assert done.returncode == 2
    assert "needs no import: use it as --model directly" in done.stderr
    assert not (tmp_path / "out.onnx").exists()


def test_an_imported_model_detects(shared_data: Path, tmp_path: Path) -> None:
    faces = shared_data / "weights/ssd_face_ultralight/version-slim-320.onnx"
    (tmp_path / "names.txt").write_text("head\n")
    options = ("--labels", tmp_path / "names.txt", "--output", tmp_path / "face.onnx")
    done = run("import", faces, *options)
    assert done.returncode == 0, done.stderr
    assert "ultralight_face_320 (ultralight), 320x240, 4420 default boxes" in done.stdout
    photo, output = shared_data / "photos/faces/1.jpg", tmp_path / "out.png"
    done = run(
        "--source", photo, "--model", tmp_path / "face.onnx", "--output", output, "--json", "-"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"head"') > 10
    assert output.exists()
    assert onnx.load(tmp_path / "face.onnx").producer_name == "realtime-ssd"
