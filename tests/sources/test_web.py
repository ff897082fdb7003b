"""What a web server sends decides whether it is an image, a file or a live stream."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from realtime_ssd.core.errors import SourceError, UsageError
from realtime_ssd.sources import Source, SourceOptions, open_source, open_sources
from realtime_ssd.sources.file import VideoFile
from realtime_ssd.sources.polled_image import PolledImage, RemoteImage
from realtime_ssd.sources.stream import Stream, password_hint
from tests.core.http_server import FolderServer, serve_folder
from tests.flash_and_beep import FRAMES, annotate, frames_of, make_clip
from tests.sources.test_stream import HttpServer, MjpegCamera

PLAYLIST_TIMES = range(0, 40 * 200, 40)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FolderServer]:
    with serve_folder(tmp_path) as running:
        yield running


@pytest.mark.parametrize(
    "suffix", [".mp4", ".mkv", ".ts", ".avi", ".mov", ".flv", ".wmv", ".gif", ".3gp", ".m2ts"]
)
def test_file_of_any_format_is_read_to_its_end_whatever_its_name(
    tmp_path: Path, server: FolderServer, suffix: str
) -> None:
    codec = {".wmv": "msmpeg4v3", ".gif": "gif"}.get(suffix, "libx264")
    if suffix == ".gif":
        make_gif(tmp_path / "clip.gif")
    else:
        make_clip(tmp_path / f"clip{suffix}", codec=codec, sounds=[])
    (tmp_path / f"clip{suffix}").rename(tmp_path / "clip")
    with open_source(f"{server.url}/clip?quality=high") as source:
        assert isinstance(source, VideoFile)
        assert len(list(source)) == FRAMES


def make_gif(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("gif", 25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "rgb8"
        for number in range(FRAMES):
            image = np.full((32, 32, 3), number, np.uint8)
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="rgb8"))
            )
        container.mux(stream.encode())


def make_playlist(folder: Path, *sizes: tuple[int, int]) -> None:
    """Write an HLS playlist of variants, the segments of each in one folder."""
    lines = ["#EXTM3U"]
    for number, size in enumerate(sizes):
        part = folder / str(number)
        part.mkdir()
        clip = make_clip(part / "clip.mp4", size=size, times=PLAYLIST_TIMES)
        with (
            av.open(str(clip)) as source,
            av.open(
                str(part / "v.m3u8"), "w", options={"hls_time": "0.5", "hls_list_size": "0"}
            ) as target,
        ):
            streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
            for packet in source.demux():
                if packet.size:
                    packet.stream = streams[packet.stream.index]
                    target.mux(packet)
        lines += [f"#EXT-X-STREAM-INF:BANDWIDTH=1000,RESOLUTION={size[0]}x{size[1]}"]
        lines += [f"{number}/v.m3u8"]
    (folder / "master.m3u8").write_text("\n".join(lines) + "\n")


def test_finished_playlist_ends_and_only_its_largest_variant_is_read(
    tmp_path: Path, server: FolderServer
) -> None:
    make_playlist(tmp_path, (96, 64), (192, 128), (48, 32))
    url = f"{server.url}/master.m3u8"
    with open_source(url) as source:
        assert isinstance(source, VideoFile)
        assert (source.info.width, source.info.height) == (192, 128)
        assert len(list(source)) == len(PLAYLIST_TIMES)
    annotate(url, tmp_path / "o.mp4")
    times, images = frames_of(tmp_path / "o.mp4")
    assert (len(times), images[0].shape) == (len(PLAYLIST_TIMES), (128, 192, 3))
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert len(container.streams.audio) == 1
    last = {path for path in server.requests if path.endswith("v3.ts")}
    assert last == {"/1/v3.ts"}


def test_playlist_without_an_end_is_live(tmp_path: Path, server: FolderServer) -> None:
    make_playlist(tmp_path, (96, 64))
    playlist = tmp_path / "0" / "v.m3u8"
    text = playlist.read_text().replace("#EXT-X-ENDLIST\n", "")
    playlist.write_text(text)
    with open_source(f"{server.url}/0/v.m3u8") as source:
        assert isinstance(source, Stream)
        assert source.info.live


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_image_is_one_frame_whatever_its_name(
    tmp_path: Path, server: FolderServer, suffix: str
) -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, 32:] = (30, 90, 200)
    (tmp_path / "snapshot").write_bytes(cv2.imencode(suffix, image)[1].tobytes())
    with open_source(f"{server.url}/snapshot") as source:
        assert isinstance(source, RemoteImage)
        assert (source.info.still, source.info.names) == (True, ("snapshot.jpg",))
        (frame,) = list(source)
    assert frame.name == "snapshot.jpg"
    assert np.abs(frame.image.astype(int) - image).max() < 12


@pytest.mark.parametrize("remote", [True, False])
def test_polled_image_is_read_again(tmp_path: Path, server: FolderServer, remote: bool) -> None:
    path = tmp_path / "snapshot.png"
    text = f"{server.url}/snapshot.png" if remote else str(path)

    def write(level: int) -> None:
        cv2.imwrite(str(path), np.full((8, 8, 3), level, np.uint8))

    write(10)
    with open_source(text, interval=0.05) as source:
        assert isinstance(source, PolledImage)
        assert source.info.live
        source.open()
        began = time.monotonic()
        levels = []
        for level in (20, 30, 40):
            frame = source.read()
            assert frame is not None
            levels.append(int(frame.image[0, 0, 0]))
            write(level)
        assert levels == [10, 20, 30]
        assert time.monotonic() - began >= 0.09
        path.unlink()
        with pytest.raises(SourceError, match="cannot be read"):
            source.read()
        write(50)
        source.open()
        frame = source.read()
        assert frame is not None
        assert frame.index == 3
        source.interrupt()
        assert source.read() is None


def test_mjpeg_of_a_camera_is_live_and_connected_once() -> None:
    camera = MjpegCamera([])
    with open_source(camera.url) as source:
        assert isinstance(source, Stream)
        source.open()
        assert source.read() is not None
        assert camera.clients == 1
    camera.close()


def test_connection_that_has_become_old_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = MjpegCamera([])
    monkeypatch.setattr("realtime_ssd.sources.stream._MAX_CONNECTION_AGE", -1.0)
    with open_source(camera.url) as source:
        source.open()
        assert source.read() is not None
    assert camera.clients == 2
    camera.close()


def test_transport_stream_without_a_size_is_live(tmp_path: Path) -> None:
    data = make_clip(tmp_path / "clip.ts").read_bytes()
    with HttpServer(data, clients=1) as server, open_source(server.url) as source:
        assert isinstance(source, Stream)


def test_address_that_does_not_answer_is_reported_when_it_is_opened(server: FolderServer) -> None:
    with open_source(f"{server.url}/missing.mp4") as source:
        for _ in range(2):
            with pytest.raises(SourceError, match=r"missing\.mp4' cannot be opened: .*404"):
                source.open()


def test_video_on_a_web_server_is_cut(tmp_path: Path, server: FolderServer) -> None:
    make_clip(tmp_path / "clip.mp4")
    with open_source(f"{server.url}/clip.mp4", start=0.8) as source:
        assert len(list(source)) == FRAMES - 20


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("rtsp://admin:a#b@host/live", ""),
        ("rtsp://admin:a/b@host/live", ""),
        ("rtsp://admin:a?b@host/live", ""),
        ("http://admin:a/@b?@host/live", ""),
    ],
)
def test_password_that_must_be_encoded_is_reported_without_it(url: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_source(url)
    assert "contains a '/', '?' or '#'; write them as %2F, %3F and %23" in str(caught.value)
    assert "admin" not in str(caught.value)
    assert "host/live" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("rtsp://admin:12/3@host/live", "; if the '/' is part of the password, write it as %2F"),
        ("rtsp://host:554/user@home", "; if the '/' is part of the password, write it as %2F"),
        ("rtsp://admin:a%23b@host/live?x=a@b", ""),
        ("rtsp://host/live@home", ""),
    ],
)
def test_hint_for_a_password_is_shown_only_where_it_may_apply(url: str, hint: str) -> None:
    assert password_hint(url) == hint
    open_source(url).close()


def test_interval_of_a_server_that_is_down_waits_for_it() -> None:
    sources: list[Source] = open_sources(["http://127.0.0.1:1/snap"], SourceOptions(interval=1))
    assert isinstance(sources[0], PolledImage)
    with sources[0] as source:
        source.open()
        with pytest.raises(SourceError, match="cannot be read: connection refused"):
            source.read()


def test_servers_that_do_not_answer_are_asked_together() -> None:
    silent = [socket.create_server(("127.0.0.1", 0)) for _ in range(8)]
    urls = [f"http://127.0.0.1:{one.getsockname()[1]}/" for one in silent]
    began = time.monotonic()
    sources = open_sources([*urls, "demo"])
    assert time.monotonic() - began < 15  # 5 s each
    assert [source.info.name for source in sources] == [*urls, "demo"]
    for source in sources[:-1]:
        with pytest.raises(SourceError, match="no answer in time"):
            source.open()
    for one in silent:
        one.close()


def test_one_wrong_address_closes_the_others(tmp_path: Path, server: FolderServer) -> None:
    make_clip(tmp_path / "clip.mp4")
    with pytest.raises(UsageError, match="does not exist"):
        open_sources([f"{server.url}/clip.mp4", f"{server.url}/clip.mp4?2", "missing.mp4"])


def test_interval_without_an_image_is_an_error(tmp_path: Path) -> None:
    path = str(make_clip(tmp_path / "clip.mp4", sounds=[]))
    with pytest.raises(UsageError, match="`interval` is for single images"):
        open_sources([path], SourceOptions(interval=1))
