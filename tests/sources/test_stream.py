"""Streams over HTTP and RTSP from servers in this process, which fail and recover."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from realtime_ssd.backends import BackendOptions, open_backend
from realtime_ssd.core.errors import RealtimeSSDError, SourceError
from realtime_ssd.core.frames import Frame
from realtime_ssd.pipeline import Pipeline, PipelineOptions
from realtime_ssd.sources import Source, open_source
from tests.sources.rtsp import FIRST_LEVEL, RtspCamera
from tests.videos import make_video

PASSWORD = "hunter2"  # noqa: S105
HEADER = (
    b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n"
    b"Connection: close\r\n\r\n"
)


class MjpegCamera:
    """Serves MJPEG over HTTP, and closes each connection after a number of frames.

    Args:
        frame_counts: Frames for each client in turn; later clients get frames without end.
        port: TCP port; any free one by default.
    """

    def __init__(self, frame_counts: list[int], port: int = 0) -> None:
        self._frame_counts = list(frame_counts)
        self._server = socket.create_server(("127.0.0.1", port))
        self.port = self._server.getsockname()[1]
        self.url = f"http://admin:hunter2@127.0.0.1:{self.port}/live.mjpg"
        self.clients = 0
        self._stopped = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            count = self._frame_counts.pop(0) if self._frame_counts else None
            self.clients += 1
            threading.Thread(target=self._serve, args=(client, count), daemon=True).start()

    def _serve(self, client: socket.socket, count: int | None) -> None:
        number = 0
        with client:
            try:
                client.recv(65536)
                client.sendall(HEADER)
                while not self._stopped.wait(0.01) and (count is None or number < count):
                    data = encode_jpeg(number)
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}"
                    client.sendall(head.encode() + b"\r\n\r\n" + data + b"\r\n")
                    number += 1
            except OSError:
                return

    def close(self) -> None:
        self._stopped.set()
        self._server.close()


def encode_jpeg(number: int) -> bytes:
    image = np.full((96, 128, 3), number % 256, np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()


@pytest.fixture
def camera() -> Iterator[MjpegCamera]:
    server = MjpegCamera([40])
    yield server
    server.close()


def test_pipeline_reconnects_after_a_loss(
    camera: MjpegCamera, tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
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
    assert "is offline" in caplog.text
    assert "is online again" in caplog.text
    assert "hunter2" not in caplog.text


def read(source: Source, count: int) -> list[Frame]:
    frames = []
    for _ in range(count):
        frame = source.read()
        assert frame is not None
        frames.append(frame)
    return frames


def test_time_is_arrival_time_without_time_stamps_also_after_a_restart() -> None:
    server = MjpegCamera([])
    with open_source(server.url) as source:
        source.open()
        assert source.info.live
        assert (source.info.width, source.info.height) == (128, 96)
        before = read(source, 20)
        server.close()
        with pytest.raises(SourceError, match=r"ended|was lost"):
            read(source, 10_000)
        with pytest.raises(SourceError, match="cannot be opened"):
            source.open()
        restarted = MjpegCamera([], server.port)
        source.open()
        frames = before + read(source, 20)
        restarted.close()
    assert [frame.index for frame in frames] == sorted({frame.index for frame in frames})
    assert {frame.time_base for frame in frames} == {Fraction(1, 1000)}
    elapsed = [frame.captured_at - frames[0].captured_at for frame in frames]
    assert [frame.time for frame in frames] == pytest.approx(elapsed, abs=0.01)


def test_rtsp_camera_with_password_is_reopened_after_a_loss(
    tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    camera = RtspCamera(password=PASSWORD)
    port = camera.port
    source = open_source(f"rtsp://admin:hunter2@127.0.0.1:{port}/live")
    with open_backend(tiny, "onnxruntime", BackendOptions(live=True)) as backend:
        loop = Pipeline([source], backend, PipelineOptions())
        times: list[float] = []
        frames_after_loss = 0
        for result in loop:
            times.append(result.frame.time)
            if len(times) == 20:
                camera.close()
                camera = RtspCamera(port, PASSWORD)
            online = loop.captures[0].state == "online"
            frames_after_loss += online and "is online again" in caplog.text
            if frames_after_loss == 20:
                loop.stop()
    camera.close()
    assert times == sorted(times)
    assert loop.statistics.total.losses == 1
    assert "hunter2" not in caplog.text


def test_wrong_password_is_reported_without_it() -> None:
    with RtspCamera(password=PASSWORD.upper()) as camera:
        source = open_source(f"rtsp://admin:hunter2@127.0.0.1:{camera.port}/live")
        with pytest.raises(SourceError, match="refused the user name or password") as caught:
            source.open()
    assert "hunter2" not in str(caught.value)


def test_first_frame_is_the_first_key_frame_the_camera_sends() -> None:
    """If it were lost, the first image would be that of the next key frame, 100 levels brighter."""
    with RtspCamera(key_frame_interval=100) as camera, open_source(camera.url) as source:
        source.open()
        frames = read(source, 3)
    levels = [float(frame.image.mean()) for frame in frames]
    assert levels == pytest.approx([FIRST_LEVEL, FIRST_LEVEL + 1, FIRST_LEVEL + 2], abs=4)


def test_time_stamps_continue_after_the_time_without_frames(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.ts", [1001 * k for k in range(150)])
    with HttpServer(video.read_bytes(), clients=2) as server, open_source(server.url) as source:
        source.open()
        first = read(source, 10)
        source.open()  # as the pipeline does after a loss
        second = read(source, 10)
    times = [frame.time - frames[0].time for frames in (first, second) for frame in frames]
    assert times == pytest.approx([k * 1001 / 30000 for k in range(10)] * 2, abs=1e-4)
    gap = second[0].captured_at - first[-1].captured_at
    assert second[0].time == pytest.approx(first[-1].time + gap, abs=1e-3)


class HttpServer:
    """Sends the same bytes to a number of clients, one after the other."""

    def __init__(self, data: bytes, clients: int) -> None:
        self._data, self._clients = data, clients
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}/live"

    def _serve(self) -> None:
        header = b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n"
        for _ in range(self._clients):
            client, _ = self._server.accept()
            with client:
                client.recv(65536)
                client.sendall(header + self._data)

    def __enter__(self) -> HttpServer:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()


def test_iteration_opens_a_stream_whose_end_is_a_loss(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.ts", [1001 * k for k in range(20)])
    indices: list[int] = []
    with HttpServer(video.read_bytes(), clients=1) as server, open_source(server.url) as source:
        with pytest.raises(SourceError, match=r"' ended|' was lost"):
            indices.extend(frame.index for frame in source)
        source.close()
        assert source.read() is None
    assert indices == list(range(20))


def test_silent_stream_does_not_block_another_source(tiny: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/never"
        sources = [open_source(url), open_source("demo:160x96,frames=20")]
        with open_backend(tiny, "onnxruntime", BackendOptions(live=True)) as backend:
            loop = Pipeline(sources, backend, PipelineOptions())
            count = 0
            for result in loop:
                count += result.frame.source.startswith("demo")
                if count == 20:
                    loop.stop()
    assert count == 20


def test_interrupted_stream_ends() -> None:
    with RtspCamera() as camera, open_source(camera.url) as source:
        source.open()
        read(source, 1)
        source.interrupt()
        assert source.read() is None
        source.open()
        read(source, 1)


@pytest.mark.parametrize(
    ("scheme", "error", "transports"),
    [
        ("RTSP", errno.EPROTONOSUPPORT, ["tcp", "udp"]),
        ("http", errno.EPROTONOSUPPORT, ["tcp"]),
        ("rtsp", errno.ECONNREFUSED, ["tcp"]),
    ],
)
def test_rtsp_server_without_tcp_transport_is_opened_over_udp(
    monkeypatch: pytest.MonkeyPatch, scheme: str, error: int, transports: list[str]
) -> None:
    tried = []

    def fail(url: str, options: dict[str, str], **_: object) -> None:
        tried.append(options["rtsp_transport"])
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr("realtime_ssd.sources.stream.av.open", fail)
    with pytest.raises(SourceError, match="cannot be opened"):
        open_source(f"{scheme}://host/live").open()
    assert tried == transports


def test_refused_connection_is_reported_without_password() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://me:hunter2@127.0.0.1:{unused.getsockname()[1]}/x"
    source = open_source(url)
    with pytest.raises(SourceError, match="connection refused") as caught:
        source.open()
    assert "hunter2" not in str(caught.value)
    assert isinstance(caught.value, RealtimeSSDError)


def test_stream_without_video_is_reported(tmp_path: Path) -> None:
    import av

    path = tmp_path / "audio.ts"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", 16000, layout="mono")
        for start in range(0, 32000, 1024):
            samples = np.zeros((1, 1024), np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with HttpServer(path.read_bytes(), clients=1) as server:
        source = open_source(server.url)
        with pytest.raises(SourceError, match="contains no video"):
            source.open()
