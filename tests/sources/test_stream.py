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
from realtime_ssd.errors import RealtimeSSDError, SourceError
from realtime_ssd.pipeline import Pipeline, PipelineOptions
from realtime_ssd.sources import open_source

HEAD = (
    b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n"
    b"Connection: close\r\n\r\n"
)


class Camera:
    """Serves MJPEG: so many pictures to each client, then the line goes dead.

    Args:
        pictures: Pictures that each client in turn gets; later ones get no end of them.
    """

    def __init__(self, pictures: list[int]) -> None:
        self._left = list(pictures)
        self._server = socket.create_server(("127.0.0.1", 0))
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
