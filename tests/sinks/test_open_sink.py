"""How a text selects a sink, with the built-in plug-ins and with those of another package."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from realtime_ssd import Detections, Frame
from realtime_ssd.core import registry
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks import find_sink, open_sink
from realtime_ssd.sinks.base import BaseSink
from realtime_ssd.sinks.images import ImageSink
from realtime_ssd.sinks.jsonlines import JsonSink
from realtime_ssd.sinks.video import VideoSink
from realtime_ssd.sources import SourceInfo

VIDEO = SourceInfo("clip.mp4", 64, 48)
IMAGE = SourceInfo("a.png", 64, 48, frame_count=1, still=True, names=("a.png",))


def result() -> FrameResult:
    frame = Frame(np.zeros((48, 64, 3), np.uint8), 0, "x", 0, name="a.png")
    return FrameResult(frame, Detections.empty())


@pytest.mark.parametrize(
    ("text", "info", "kind", "written"),
    [
        ("o.mp4", VIDEO, VideoSink, "o.mp4"),
        ("o.WEBM", VIDEO, VideoSink, "o.WEBM"),
        ("video:o.mkv", VIDEO, VideoSink, "o.mkv"),
        ("o.png", IMAGE, ImageSink, "o.png"),
        ("images:out", VIDEO, ImageSink, "out/a.png"),
        ("o.jsonl", VIDEO, JsonSink, "o.jsonl"),
        ("json:o.txt", VIDEO, JsonSink, "o.txt"),
    ],
)
def test_text_selects_a_sink(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    info: SourceInfo,
    kind: type[BaseSink],
    written: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_sink(text, info) as sink:
        assert type(sink) is kind
        assert sink.policy == "block"
        sink.write(result())
    assert Path(written).stat().st_size > 0
    with pytest.raises(UsageError, match="exists"), open_sink(text, info) as sink:
        sink.write(result())
    with open_sink(text, info, overwrite=True) as sink:
        sink.write(result())


def test_folder_with_the_suffix_of_an_image_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "o.png").mkdir()
    with open_sink(f"images:{tmp_path / 'o.png'}", VIDEO) as sink:
        sink.write(result())
    assert (tmp_path / "o.png" / "a.png").is_file()


def test_several_frames_do_not_fit_in_one_image(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"o.png' is a single image; use a folder, or a video"):
        open_sink(str(tmp_path / "o.png"), VIDEO)


@pytest.mark.parametrize("text", ["o.doc", "mqtt:localhost", "o", ":o"])
def test_unknown_text_is_an_error(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_sink(text)
    message = str(caught.value)
    assert message.startswith(f"'{text}' is not a supported output; use NAME:TARGET with one of ")
    assert "json" in message
    assert ".mp4" in message


PLUGIN = """
from realtime_ssd.sinks.base import BaseSink

class Count(BaseSink):
    def __init__(self, target):
        self.target, self.count = target, 0

    def write(self, result):
        self.count += 1

class Plugin:
    suffixes = (".count",)
    per_source = False

    def files(self, target, info):
        return []

    def open(self, target, info, overwrite):
        return Count((target, info.name, overwrite))

PLUGIN = Plugin()
"""


@pytest.fixture
def plugin_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package with a sink."""
    (tmp_path / "count_sink.py").write_text(PLUGIN)
    metadata = tmp_path / "count_sink-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: count-sink\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[realtime_ssd.sinks]\ncount = count_sink:PLUGIN\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.plugins.cache_clear()
    registry.load_plugins.cache_clear()
    yield
    registry.plugins.cache_clear()
    registry.load_plugins.cache_clear()


@pytest.mark.usefixtures("plugin_package")
@pytest.mark.parametrize(
    ("text", "target"),
    [("count:host:1883/topic", "host:1883/topic"), ("a.COUNT", "a.COUNT"), ("count:", "")],
)
def test_another_package_adds_a_sink(text: str, target: str) -> None:
    assert not find_sink(text)[0].per_source
    with open_sink(text, VIDEO, overwrite=True) as sink:
        sink.write(result())
    assert vars(sink) == {"target": (target, "clip.mp4", True), "count": 1}


def test_json_sink_receives_all_sources_and_files_receive_one(tmp_path: Path) -> None:
    assert [find_sink(text)[0].per_source for text in ("json:-", "o.mp4", "images:out")] == [
        False,
        True,
        True,
    ]
    with open_sink(f"json:{tmp_path / 'o.jsonl'}", VIDEO) as sink:
        sink.write(result())
    assert json.loads((tmp_path / "o.jsonl").read_text())["file"] == "a.png"
