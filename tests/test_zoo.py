"""Models by name, and pulling of official ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from realtime_ssd import zoo
from realtime_ssd.core.errors import ModelError, RealtimeSSDError, UsageError
from realtime_ssd.core.registry import load_plugin
from realtime_ssd.core.spec import read_spec
from tests.core.http_server import FolderServer, serve_folder

OFFICIAL_NAME = next(iter(zoo.OFFICIAL))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FolderServer]:
    with serve_folder(tmp_path) as running:
        yield running


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of models; it does not exist yet."""
    monkeypatch.setenv("REALTIME_SSD_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def test_pulled_model_becomes_the_default(
    server: FolderServer, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    from tests.training.importers.reference_vgg16 import make_checkpoint

    torch.save(make_checkpoint("torchvision"), tmp_path / "m.pth")
    digest = hashlib.sha256((tmp_path / "m.pth").read_bytes()).hexdigest()
    official = zoo.OfficialModel(f"{server.url}/m.pth", digest[:8], "a test")
    monkeypatch.setitem(zoo.OFFICIAL, OFFICIAL_NAME, official)
    assert zoo.find_model(None)[0] == zoo.BUNDLED
    path = zoo.pull(OFFICIAL_NAME)
    assert path == models / f"{OFFICIAL_NAME}.onnx"
    assert read_spec(path).num_boxes == 8732
    assert zoo.find_model(None) == (path, f"using model '{OFFICIAL_NAME}'")
    assert json.loads((models / "checksums.json").read_text()) == {official.url: digest}


def test_failed_pull_leaves_no_model(
    server: FolderServer, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.pth").write_bytes(b"something else")
    for name, error, message in (
        ("m.pth", ModelError, "the download was discarded"),
        ("none.pth", RealtimeSSDError, "cannot be downloaded .* use 'realtime-ssd import'"),
    ):
        official = zoo.OfficialModel(f"{server.url}/{name}", "b556d3b4", "")
        monkeypatch.setitem(zoo.OFFICIAL, OFFICIAL_NAME, official)
        with pytest.raises(error, match=message):
            zoo.pull(OFFICIAL_NAME)
    assert list(models.iterdir()) == []


def test_missing_packages_are_named_before_the_download(
    server: FolderServer, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    official = zoo.OfficialModel(f"{server.url}/m.pth", "b556d3b4", "")
    monkeypatch.setitem(zoo.OFFICIAL, OFFICIAL_NAME, official)
    importer = load_plugin("importers", "checkpoint")
    monkeypatch.setattr(type(importer), "missing", lambda _: ["torch"])
    with pytest.raises(RealtimeSSDError, match=r"needs torch; .* 'realtime-ssd\[train\]'"):
        zoo.pull(OFFICIAL_NAME)
    assert server.requests == []
    assert not models.exists()


def test_find_model(models: Path, tiny: Path) -> None:
    assert zoo.find_model("street") == (zoo.BUNDLED, "")
    assert zoo.find_model(str(tiny)) == (tiny, "")
    with pytest.raises(UsageError, match=r"there is no model 'other'; choose from street$"):
        zoo.find_model("other")
    with pytest.raises(UsageError, match="models pull ssd300_vgg16_coco"):
        zoo.find_model("ssd300_vgg16_coco")
    with pytest.raises(UsageError, match=r"model file 'none\.onnx' does not exist"):
        zoo.find_model("none.onnx")
    with pytest.raises(UsageError, match="there is no official model 'other'"):
        zoo.pull("other")


def test_default_model_is_explained(models: Path) -> None:
    path, message = zoo.find_model(None)
    assert path == zoo.BUNDLED
    assert "run 'realtime-ssd models pull ssd300_vgg16_coco' or choose an ONNX file" in message


def test_local_models_by_name(models: Path, tiny: Path) -> None:
    assert zoo.local_models() == {}
    models.mkdir()
    for name in ("b.onnx", "a.onnx"):
        (models / name).write_bytes(tiny.read_bytes())
    (models / "notes.txt").touch()
    assert list(zoo.local_models().items()) == [("a", models / "a.onnx"), ("b", models / "b.onnx")]
    assert zoo.find_model("a") == (models / "a.onnx", "")
    with pytest.raises(UsageError, match=r"choose from street, a, b$"):
        zoo.find_model("c")
