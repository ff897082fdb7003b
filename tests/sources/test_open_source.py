"""How a text selects a source, with the built-in plug-ins and with those of another package."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from realtime_ssd.core import registry
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.registry import load_plugins
from realtime_ssd.sources import open_source
from realtime_ssd.sources.base import BaseSource
from realtime_ssd.sources.camera import Camera
from realtime_ssd.sources.demo import DemoSource
from realtime_ssd.sources.file import VideoFile
from realtime_ssd.sources.images import Images
from realtime_ssd.sources.stream import Stream
from tests.videos import make_video

MISSING = "does not exist; use a file, folder, URL, camera number or 'demo'"


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        (0, Camera, "camera 0"),
        ("12", Camera, "camera 12"),
        ("/dev/video3", Camera, "camera 3"),
        ("demo", DemoSource, "demo"),
        ("demo:64x64", DemoSource, "demo:64x64"),
        ("rtsp://me:secret@host/live", Stream, "rtsp://host/live"),
        ("RTSP://host/live", Stream, "RTSP://host/live"),
        ("udp://host:5000/a.ts", Stream, "udp://host:5000/a.ts"),
    ],
)
def test_text_selects_a_source(text: str | int, kind: type[BaseSource], name: str) -> None:
    with open_source(text) as source:
        assert type(source) is kind
        assert source.info.name == name


def test_paths_select_files_and_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = make_video(tmp_path / "clip.mp4", [0, 1001])
    cv2.imwrite(str(tmp_path / "a.JPG.png"), np.zeros((8, 8, 3), np.uint8))
    monkeypatch.setenv("HOME", str(tmp_path))
    for text in (video, str(video), f"file://{video}", "~/clip.mp4"):
        with open_source(text) as source:
            assert type(source) is VideoFile
            assert source.info.path == video
    for text in (tmp_path, str(tmp_path / "*.png"), tmp_path / "a.JPG.png", f"file://{tmp_path}"):
        with open_source(text) as source:
            assert type(source) is Images


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("missing.mp4", f"'missing.mp4' {MISSING}"),
        ("file:///missing.mp4", f"'/missing.mp4' {MISSING}"),
        ("missing.jpg", "'missing.jpg' does not exist; use an image, a folder or a glob"),
        (
            "gopher://me:secret@host/x",
            "'gopher://host/x' has an unknown scheme; use one of rtsp, rtsps, rtmp, rtmps, http, "
            "https, udp, tcp, srt, rtp, or a file",
        ),
    ],
)
def test_unknown_text_is_an_error(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_source(text)
    assert str(caught.value) == message


def test_path_that_the_system_rejects_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"cannot be opened: File name too long|does not exist"):
        open_source("x" * 5000)


PLUGIN = """
from realtime_ssd.core.frames import Frame
from realtime_ssd.sources.base import BaseSource, SourceInfo

class Blank(BaseSource):
    def __init__(self, text, decoder):
        self.info = SourceInfo(f"{text} {decoder}", frame_count=2)
        self._left = 2

    def read(self):
        import numpy as np
        self._left -= 1
        return Frame(np.zeros((4, 4, 3), np.uint8)) if self._left >= 0 else None

class Plugin:
    def __init__(self, priority, prefix):
        self.priority, self._prefix = priority, prefix

    def matches(self, text):
        return text.startswith(self._prefix)

    def open(self, text, options):
        return Blank(text, options.decoder)

BLANK, OVERRIDE = Plugin(10, "blank"), Plugin(100, "demo:blank")
"""


@pytest.fixture
def plugin_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package with two sources, and one that cannot be imported."""
    (tmp_path / "blank_sources.py").write_text(PLUGIN)
    metadata = tmp_path / "blank_sources-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: blank-sources\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[realtime_ssd.sources]\nblank = blank_sources:BLANK\noverride = blank_sources:OVERRIDE\n"
        "broken = blank_sources_missing:PLUGIN\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.plugins.cache_clear()
    registry.load_plugins.cache_clear()
    yield
    registry.plugins.cache_clear()
    registry.load_plugins.cache_clear()


@pytest.mark.usefixtures("plugin_package")
def test_another_package_adds_sources(caplog: pytest.LogCaptureFixture) -> None:
    with open_source("blank:1", decoder="gpu") as source:
        assert source.info.name == "blank:1 gpu"
        assert len(list(source)) == 2
    with open_source("demo:blank") as source:  # a higher priority than the built-in demo
        assert source.info.name == "demo:blank cpu"
    with open_source("demo:64x64") as source:
        assert type(source) is DemoSource
    assert "(blank_sources_missing:PLUGIN) cannot be imported" in caplog.text


def test_built_in_plugins_are_cheap_to_load() -> None:
    program = (
        "import sys\n"
        "from realtime_ssd.core.registry import load_plugins\n"
        "assert {'camera', 'demo', 'file', 'images', 'stream'} <= set(load_plugins('sources'))\n"
        "assert {'video', 'images', 'json'} <= set(load_plugins('sinks'))\n"
        "sys.exit(', '.join({'cv2', 'av'} & set(sys.modules)) or 0)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_built_in_plugin_has_a_priority_below_100() -> None:
    assert all(0 <= plugin.priority < 100 for plugin in load_plugins("sources").values())
