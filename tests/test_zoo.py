from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from realtime_ssd import zoo
from realtime_ssd.core.errors import ModelError, RealtimeSSDError, UsageError
from realtime_ssd.core.spec import read_spec


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    served = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path)))
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_address[1]}"
    served.shutdown()
    served.server_close()


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REALTIME_SSD_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def test_pull_checks_imports_and_becomes_the_default(
    server: str, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    from tests.training.importers.reference_vgg16 import make_checkpoint

    torch.save(make_checkpoint("torchvision"), tmp_path / "m.pth")
    digest = hashlib.sha256((tmp_path / "m.pth").read_bytes()).hexdigest()
    name = next(iter(zoo.OFFICIAL))
    official = zoo.Official(f"{server}/m.pth", digest[:8], "a test")
    monkeypatch.setitem(zoo.OFFICIAL, name, official)
    assert zoo.find_model(None)[0] == zoo.BUNDLED
    path = zoo.pull(name)
    assert path == own / f"{name}.onnx"
    assert read_spec(path).num_boxes == 8732
    found, remark = zoo.find_model(None)
    assert found == path
    assert name in remark


def test_what_came_is_not_what_was_published(
    server: str, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.pth").write_bytes(b"something else")
    name = next(iter(zoo.OFFICIAL))
    monkeypatch.setitem(zoo.OFFICIAL, name, zoo.Official(f"{server}/m.pth", "b556d3b4", ""))
    with pytest.raises(ModelError, match="it was thrown away"):
        zoo.pull(name)
    monkeypatch.setitem(zoo.OFFICIAL, name, zoo.Official(f"{server}/none.pth", "b556d3b4", ""))
    with pytest.raises(RealtimeSSDError, match="cannot be fetched"):
        zoo.pull(name)
    assert not list(own.glob("*.onnx"))


def test_names(own: Path, tiny: Path) -> None:
    assert zoo.find_model("street") == (zoo.BUNDLED, "")
    assert zoo.find_model(str(tiny)) == (tiny, "")
    with pytest.raises(UsageError, match="known are street"):
        zoo.find_model("other")
    with pytest.raises(UsageError, match="models pull ssd300_vgg16_coco"):
        zoo.find_model("ssd300_vgg16_coco")
    with pytest.raises(UsageError, match="no official model"):
        zoo.pull("other")
