"""`realtime-ssd import`, as a user runs it."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest
from realtime_ssd_training.cli.import_ import import_model
from realtime_ssd_training.importers import caffe_model, onnx_model, pytorch_checkpoint

from realtime_ssd.cli import main
from tests.cli.program import run


def test_help_names_every_family_and_kind_of_file() -> None:
    told = " ".join((import_model.__doc__ or "").split())
    projects = {name.partition("-")[0] for name in pytorch_checkpoint.FAMILIES}
    for name in (*projects, *caffe_model.families(), *onnx_model.families()):
        assert name in told
    for ending in (".onnx", ".pth", ".pt", ".safetensors", ".caffemodel"):
        assert ending in told


def test_a_model_that_needs_no_import(tiny: Path, tmp_path: Path) -> None:
    done = run("import", tiny, "--output", tmp_path / "out.onnx")
    assert done.returncode == 2
    assert "needs no import: use it as --model directly" in done.stderr
    assert not (tmp_path / "out.onnx").exists()


def test_a_checkpoint_without_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(
        sys.modules, "realtime_ssd_training.importers.pytorch_checkpoint", raising=False
    )
    (tmp_path / "a.pth").write_bytes(b"weights")
    with pytest.raises(SystemExit) as caught:
        main(["import", str(tmp_path / "a.pth"), "--output", str(tmp_path / "a.onnx")])
    said = capsys.readouterr().err
    assert caught.value.code == 1
    assert said.endswith("install it with pip install 'realtime-ssd[train]'\n")
    assert len(said.splitlines()) == 1


def test_the_whole_way(shared_data: Path, tmp_path: Path) -> None:
    faces = shared_data / "weights/ssd_face_ultralight/version-slim-320.onnx"
    (tmp_path / "names.txt").write_text("head\n")
    words = ("--labels", tmp_path / "names.txt", "--output", tmp_path / "face.onnx")
    done = run("import", faces, *words)
    assert done.returncode == 0, done.stderr
    assert "ultralight_face_320 (ultralight), 320x240, 4420 default boxes" in done.stdout
    photo, out = shared_data / "photos/faces/1.jpg", tmp_path / "out.png"
    done = run("--source", photo, "--model", tmp_path / "face.onnx", "--output", out, "--json", "-")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"head"') > 10
    assert out.exists()
    assert onnx.load(tmp_path / "face.onnx").producer_name == "realtime-ssd"
