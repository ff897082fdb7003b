"""Published video arrives at servers and players; lost connections are made again."""

from __future__ import annotations

import functools
import http.server
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from realtime_ssd import Detections, Frame
from realtime_ssd.core.errors import RealtimeSSDError, UsageError
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks import find_sink, open_sink
from realtime_ssd.sinks.publish import PublishSink
from realtime_ssd.sinks.publish_targets import display_url, publish_target
from realtime_ssd.sources import SourceInfo

RATE = Fraction(50)
FILE = SourceInfo("clip.mp4", 64, 48, rate=RATE, time_base=1 / RATE)
LIVE = SourceInfo("camera", 64, 48, live=True, rate=RATE, time_base=1 / RATE)


def result(index: int) -> FrameResult:
    image = np.full((48, 64, 3), 2 * index % 256, np.uint8)
    return FrameResult(Frame(image, index, "clip.mp4", index, 1 / RATE), Detections.empty())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_listening(port: int) -> bool:
    """Return whether a socket listens, without connecting to it."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    entries = (line.split() for line in lines)
    return any(entry[1].endswith(f":{port:04X}") and entry[3] == "0A" for entry in entries)


class Server:
    """Accepts one published stream, with FFmpeg as the server, and decodes it."""

    def __init__(self, url: str, options: dict[str, str]) -> None:
        self.frames: list[int] = []
        self._url, self._options = url, options
        self._stop = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        wait_until(lambda: is_listening(int(url.split(":")[2].split("/", maxsplit=1)[0])))

    def _run(self) -> None:
        options = {"probesize": "100000", "analyzeduration": "100000", **self._options}
        try:
            with av.open(self._url, options=options) as container:
                for frame in container.decode(video=0):
                    self.frames.append(int(frame.to_ndarray(format="gray").mean()))
                    if self._stop:
                        return
        except (av.error.FFmpegError, OSError):
            pass

    def stop(self) -> None:
        self._stop = True


def rtsp_server(port: int) -> tuple[str, Server]:
    url = f"rtsp://127.0.0.1:{port}/live"
    return url, Server(url, {"rtsp_flags": "listen", "listen_timeout": "20"})


def rtmp_server(port: int) -> tuple[str, Server]:
    url = f"rtmp://127.0.0.1:{port}/app/key"
    return url, Server(url, {"listen": "1"})


@pytest.mark.parametrize("start", [rtsp_server, rtmp_server])
def test_a_server_receives_every_frame_of_a_file(
    start: Callable[[int], tuple[str, Server]],
) -> None:
    url, server = start(free_port())
    started = time.monotonic()
    with PublishSink(url, FILE) as sink:
        for index in range(30):
            sink.write(result(index))
    assert time.monotonic() - started > 0.5  # 30 frames at 50 frames per second
    server.thread.join(20)
    assert len(server.frames) >= 29
    assert np.abs(np.diff(server.frames)).max() <= 4
    assert server.frames[-1] >= 50


def test_a_lost_connection_is_made_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realtime_ssd.sinks.publish.FIRST_RETRY_DELAY", 0.05)
    monkeypatch.setattr("realtime_ssd.sinks.publish.MAX_RETRY_DELAY", 0.05)
    port = free_port()
    url, server = rtsp_server(port)
    with PublishSink(url, FILE) as sink:
        numbers = iter(range(10_000))

        def write_until(condition: Callable[[], bool]) -> None:
            while not condition():
                number = next(numbers)
                assert number < 1000
                sink.write(result(number))

        write_until(lambda: len(server.frames) > 5)
        server.stop()
        write_until(lambda: "reconnecting" in caplog.text)
        _, second = rtsp_server(port)
        write_until(lambda: len(second.frames) > 5 and "online again" in caplog.text)
    assert caplog.messages[0].startswith(f"'{url}' was lost (")
    assert caplog.messages[1] == f"'{url}' is online again"


def write_until_refused(sink: PublishSink) -> str:
    deadline = time.monotonic() + 20
    try:
        for index in range(1_000_000):
            sink.write(result(index))
            if time.monotonic() > deadline:
                break
    except RealtimeSSDError as error:
        sink.close()
        return str(error)
    raise AssertionError


@pytest.mark.parametrize("info", [FILE, LIVE])
def test_a_failed_first_connection_ends_the_run_without_secrets(info: SourceInfo) -> None:
    port = free_port()
    sink = PublishSink(f"rtsp://user:word@127.0.0.1:{port}/live", info)
    message = write_until_refused(sink)
    assert message == f"'rtsp://127.0.0.1:{port}/live' cannot be published to: connection refused"


def test_a_failure_is_also_reported_by_a_short_run() -> None:
    sink = PublishSink(f"rtmp://127.0.0.1:{free_port()}/app/key", LIVE)
    sink.write(result(0))
    with pytest.raises(RealtimeSSDError, match=r"/app/\*\*\*' cannot be published to: connection"):
        sink.close()
    sink.close()


def test_a_server_that_does_not_answer_blocks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realtime_ssd.sinks.publish._STALL_TIMEOUT", 0.2)
    monkeypatch.setattr("realtime_ssd.sinks.publish._CLOSE_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        message = write_until_refused(PublishSink(f"rtsp://127.0.0.1:{port}/live", FILE))
    assert message.endswith("cannot be published to: no answer in time")


@contextmanager
def web_server(folder: Path) -> Iterator[int]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def play(folder: Path, name: str) -> list[float]:
    with (
        web_server(folder) as port,
        av.open(f"http://127.0.0.1:{port}/{name}", timeout=20) as container,
    ):
        return [float(frame.time or 0) for frame in container.decode(video=0)]


def test_an_hls_player_shows_a_published_file(tmp_path: Path) -> None:
    with open_sink(str(tmp_path / "new/50% a.m3u8"), FILE) as sink:
        for index in range(250):
            sink.write(result(index))
    times = play(tmp_path / "new", "50%25%20a.m3u8")
    assert len(times) == 250
    assert np.diff(times) == pytest.approx(0.02, abs=0.001)
    playlist = (tmp_path / "new/50% a.m3u8").read_text()
    assert playlist.count("#EXTINF") == 3
    assert playlist.endswith("#EXT-X-ENDLIST\n")


def test_a_live_playlist_holds_the_newest_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realtime_ssd.sinks.publish_targets._LIVE_SEGMENTS", 2)
    info = replace(LIVE, rate=Fraction(5), time_base=Fraction(1, 5))
    with PublishSink(str(tmp_path / "live.m3u8"), info) as sink:
        for index in range(60):
            frame = replace(result(index).frame, time_base=Fraction(1, 5))
            sink.write(FrameResult(frame, Detections.empty()))
            wait_until(lambda: not sink.pending())
        assert "#EXT-X-ENDLIST" not in (tmp_path / "live.m3u8").read_text()
    assert 10 <= len(play(tmp_path, "live.m3u8")) <= 30  # of 60
    assert len(list(tmp_path.glob("*.ts"))) <= 4
    assert "#EXT-X-PROGRAM-DATE-TIME" in (tmp_path / "live.m3u8").read_text()


def test_playlists_are_not_replaced_and_not_left_empty(tmp_path: Path) -> None:
    path = tmp_path / "a.m3u8"
    with PublishSink(str(path), FILE):
        pass
    assert not path.exists()
    path.write_text("old")
    with pytest.raises(UsageError, match="exists"):
        PublishSink(str(path), FILE)
    assert path.read_text() == "old"


def test_gaps_and_steps_back_are_left_out() -> None:
    sink = PublishSink("udp://127.0.0.1:9", FILE)
    times = []
    for pts in (100, 101, 5000, 5001, 20, 21):
        frame = Frame(np.zeros((48, 64, 3), np.uint8), 0, "clip.mp4", pts, 1 / RATE)
        times.append(sink._advance(FrameResult(frame, Detections.empty())))
    assert times == [Fraction(k, 50) for k in range(6)]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://user:pass@host:8554/live?token=abc", "rtsp://host:8554/live?token=***"),
        ("rtmp://host/app/stream-key", "rtmp://host/app/***"),
        ("rtmps://host/app/stream-key?a=b", "rtmps://host/app/***"),
        ("rtmp://host/app", "rtmp://host/app"),
        ("srt://host:9000?streamid=publish:a:b&passphrase=0123456789",
         "srt://host:9000?streamid=***&passphrase=***"),
    ],
)  # fmt: skip
def test_secrets_are_not_shown(url: str, shown: str) -> None:
    assert display_url(url) == shown
    assert publish_target(url, live=False).name == shown


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://host/x", "'http://host/x' is not a supported output; publish to one of rtsp://"),
        ("rtsp:///x", "is not a valid URL; use rtsp://HOST:PORT/PATH"),
        ("rtsp://a:b#c@host/x", "percent-encode"),
        ("srt://host", "'srt://host' has no port; use srt://HOST:PORT"),
        ("udp://host:99999", "is not a valid URL"),
    ],
)
def test_malformed_urls(url: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        publish_target(url, live=False)
    assert message in str(caught.value)
    assert "b#c" not in str(caught.value)


def test_urls_and_playlists_select_the_plug_in() -> None:
    for text in ("rtsp://host/live", "srt://host:1", "a.m3u8", "publish:udp://host:1"):
        plugin, _ = find_sink(text)
        assert type(plugin).__name__ == "PublishPlugin"
    with pytest.raises(UsageError, match="is not a supported output"):
        find_sink("ftp://host/a.mp4")


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the program ffmpeg is not installed")
@pytest.mark.slow
def test_srt_reports_a_missing_listener() -> None:
    port = free_port()
    sink = PublishSink(f"srt://127.0.0.1:{port}?passphrase=0123456789", FILE)
    message = write_until_refused(sink)
    assert "cannot be published to: " in message
    assert "0123456789" not in message


FULL_DISK = """
import resource, signal, sys
from realtime_ssd.core.errors import RealtimeSSDError
from realtime_ssd.sinks.encoder_options import EncoderOptions
from realtime_ssd.sinks.publish import PublishSink
from tests.sinks.test_publish import FILE, result
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sink = PublishSink(sys.argv[1], FILE)
try:
    for number in range(3000):
        sink.write(result(number))
        if number == 250: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    sink.close()
except RealtimeSSDError as error: print(error)
sink.close()
"""


def test_a_full_disk_leaves_a_playable_playlist(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "a.m3u8")],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout == (
        f"writing '{tmp_path / 'a.m3u8'}' failed (File too large); the segments before can be "
        "played\n"
    )
    assert done.stderr == ""
    assert "a_00000.ts" in (tmp_path / "a.m3u8").read_text()
    with av.open(str(tmp_path / "a_00000.ts")) as container:
        assert len(list(container.decode(video=0))) >= 90


def test_a_deleted_folder_of_a_playlist_is_reported(tmp_path: Path) -> None:
    sink = PublishSink(str(tmp_path / "new/a.m3u8"), FILE)
    sink.write(result(0))
    wait_until(lambda: not sink.pending())
    shutil.rmtree(tmp_path / "new")
    assert "the segments before can be played" in write_until_refused(sink)


@contextmanager
def gstreamer_server(recording: Path) -> Iterator[int]:
    python = "/usr/bin/python3"
    check = "import gi; gi.require_version('GstRtspServer', '1.0')"
    if (
        not Path(python).exists()
        or subprocess.run([python, "-c", check], capture_output=True, check=False).returncode
    ):
        pytest.skip("GStreamer's RTSP server (gir1.2-gst-rtsp-server-1.0) is not installed")
    port = free_port()
    script = Path(__file__).parent / "gstreamer_rtsp_server.py"
    server = subprocess.Popen([python, str(script), str(port), str(recording), "pass word"])
    try:
        wait_until(lambda: is_listening(port))
        yield port
    finally:
        server.kill()
        server.wait()


@pytest.mark.slow
def test_gstreamer_records_what_is_published(tmp_path: Path) -> None:
    recording = tmp_path / "r.ts"
    with gstreamer_server(recording) as port:
        wrong = PublishSink(f"rtsp://user:other@127.0.0.1:{port}/live", FILE)
        assert write_until_refused(wrong).endswith("the server refused the user name or password")
        with PublishSink(f"rtsp://user:pass%20word@127.0.0.1:{port}/live", FILE) as sink:
            for index in range(100):
                sink.write(result(index))
        wait_until(lambda: recording.exists() and recording.stat().st_size > 10_000)
    with av.open(str(recording)) as container:
        assert len(list(container.decode(video=0))) >= 90
