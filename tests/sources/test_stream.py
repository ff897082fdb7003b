"""A real stream over HTTP on this machine, taken away and brought back."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from realtime_ssd.backends import BackendOptions, open_backend
from realtime_ssd.core.errors import RealtimeSSDError, SourceError
from realtime_ssd.core.frames import Frame
from realtime_ssd.pipeline import Pipeline, PipelineOptions
from realtime_ssd.sources import Source, open_source
from tests.sources.rtsp import RtspCamera
from tests.videos import make_video

HEAD = (
    b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n"
    b"Connection: close\r\n\r\n"
)


class Camera:
    """Serves MJPEG: so many pictures to each client, then the line goes dead.

    Args:
        pictures: Pictures that each client in turn gets; later ones get no end of them.
        port: Where; any free one by default.
    """

    def __init__(self, pictures: list[int], port: int = 0) -> None:
        self._left = list(pictures)
        self._server = socket.create_server(("127.0.0.1", port))
        self.port = self._server.getsockname()[1]
        self.url = f"http://admin:hunter2@127.0.0.1:{self.port}/live.mjpg"
        self.clients = 0
        self._stop = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            count = self._left.pop(0) if self._left else None
            self.clients += 1
            threading.Thread(target=self._serve, args=(client, count), daemon=True).start()

    def _serve(self, client: socket.socket, count: int | None) -> None:
        number = 0
        with client:
            try:
                client.recv(65536)
                client.sendall(HEAD)
                while not self._stop.wait(0.01) and (count is None or number < count):
                    data = _jpeg(number)
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}"
                    client.sendall(head.encode() + b"\r\n\r\n" + data + b"\r\n")
                    number += 1
            except OSError:
                return

    def close(self) -> None:
        self._stop.set()
        self._server.close()


def _jpeg(number: int) -> bytes:
    image = np.full((96, 128, 3), number % 256, np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()


@pytest.fixture
def camera() -> Iterator[Camera]:
    served = Camera([40])
    yield served
    served.close()


def test_lost_and_back(camera: Camera, tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = open_source(camera.url)
    assert source.info.live
    assert source.info.name == f"http://127.0.0.1:{camera.port}/live.mjpg"
    with open_backend(tiny, "onnxruntime", BackendOptions(live=True)) as backend:
        loop = Pipeline([source], backend, PipelineOptions())
        times = []
        for result in loop:
            times.append(result.frame.captured_at)
            if camera.clients > 1 and len(times) > 30:
                loop.stop()
    counts = loop.statistics.total
    assert counts.losses >= 1
    assert counts.captured == counts.processed + sum(counts.dropped.values())
    said = caplog.text
    assert "is offline" in said
    assert "is back" in said
    assert "hunter2" not in said


def read(source: Source, count: int) -> list[Frame]:
    frames = []
    for _ in range(count):
        frame = source.read()
        assert frame is not None
        frames.append(frame)
    return frames


def test_server_killed_and_started_again(tiny: Path) -> None:
    """The time goes on: without times in the stream it is the time of arrival."""
    served = Camera([])
    with open_source(served.url) as source:
        source.open()
        first = read(source, 20)
        served.close()
        with pytest.raises(SourceError):
            read(source, 10_000)
        with pytest.raises(SourceError, match="cannot be opened"):
            source.open()
        again = Camera([], served.port)
        source.open()
        frames = first + read(source, 20)
        again.close()
    assert [frame.index for frame in frames] == sorted({frame.index for frame in frames})
    passed = [frame.captured_at - frames[0].captured_at for frame in frames]
    assert [frame.time for frame in frames] == pytest.approx(passed, abs=0.002)


def test_rtsp_camera_that_asks_for_a_password_vanishes_and_comes_back(
    tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    camera = RtspCamera(word="hunter2")
    port = camera.port
    source = open_source(f"rtsp://admin:hunter2@127.0.0.1:{port}/live")
    with open_backend(tiny, "onnxruntime", BackendOptions(live=True)) as backend:
        loop = Pipeline([source], backend, PipelineOptions())
        times: list[float] = []
        back = 0
        for result in loop:
            times.append(result.frame.time)
            if len(times) == 20:
                camera.close()
                camera = RtspCamera(port, "hunter2")
            back += loop.captures[0].state == "online" and "is back" in caplog.text
            if back == 20:
                loop.stop()
    camera.close()
    assert times == sorted(times)
    assert loop.statistics.total.losses == 1
    assert "hunter2" not in caplog.text

    with RtspCamera(word="another") as camera:
        source = open_source(f"rtsp://admin:hunter2@127.0.0.1:{camera.port}/live")
        with pytest.raises(SourceError, match="refused the user name or password") as caught:
            source.open()
    assert "hunter2" not in str(caught.value)


def test_a_stream_with_times_of_its_own_goes_on_where_it_was(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.ts", [1001 * k for k in range(150)])
    with Sender(video.read_bytes(), sends=2) as sender, open_source(sender.url) as source:
        source.open()
        first = read(source, 10)
        source.open()  # as the loop does after a loss
        second = read(source, 10)
    steps = [frame.time - frames[0].time for frames in (first, second) for frame in frames]
    assert steps == pytest.approx([k * 1001 / 30000 for k in range(10)] * 2, abs=1e-4)
    away = second[0].captured_at - first[-1].captured_at
    assert second[0].time == pytest.approx(first[-1].time + away, abs=1e-3)


class Sender:
    """Sends the same bytes to each of some clients."""

    def __init__(self, data: bytes, sends: int) -> None:
        self._data, self._sends = data, sends
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}/live"

    def _serve(self) -> None:
        head = b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n"
        for _ in range(self._sends):
            client, _ = self._server.accept()
            with client:
                client.recv(65536)
                client.sendall(head + self._data)

    def __enter__(self) -> Sender:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()


def test_another_source_is_not_held_up(tiny: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/never"
        sources = [open_source(url), open_source("demo:160x96,frames=20")]
        with open_backend(tiny, "onnxruntime", BackendOptions(live=True)) as backend:
            loop = Pipeline(sources, backend, PipelineOptions())
            seen = 0
            for result in loop:
                seen += result.frame.source.startswith("demo")
                if seen == 20:
                    loop.stop()
    assert seen == 20


def test_refused_and_no_video() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://me:hunter2@127.0.0.1:{free.getsockname()[1]}/x"
    source = open_source(url)
    with pytest.raises(SourceError, match="connection refused") as caught:
        source.open()
    assert "hunter2" not in str(caught.value)
    assert isinstance(caught.value, RealtimeSSDError)
