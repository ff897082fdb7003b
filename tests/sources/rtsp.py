"""A camera that speaks RTSP: H.264 in RTP packets on the same connection (RFC 2326, RFC 6184)."""

from __future__ import annotations

import base64
import re
import socket
import struct
import threading
from contextlib import suppress
from fractions import Fraction

import av
import numpy as np

RATE, CLOCK = 30, 90000


def nal_units(frames: int, size: tuple[int, int] = (128, 96)) -> list[list[bytes]]:
    """Encode grey frames, each brighter than the last; give the units of each."""
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = *size, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, RATE), Fraction(RATE)
    encoder.gop_size = 10
    encoder.options = {"tune": "zerolatency", "x264-params": "repeat-headers=1:sliced-threads=0"}
    units = []
    for number in range(frames):
        image = np.full((size[1], size[0], 3), 40 + number, np.uint8)
        frame = av.VideoFrame.from_ndarray(image, format="bgr24")
        frame.pts = number
        for packet in encoder.encode(frame):
            units.append([part for part in re.split(b"\0\0\0?\1", bytes(packet)) if part])
    return units


class RtspCamera:
    """Serves to any number of clients, one after the other or at once.

    Args:
        port: Where; any free one by default.
        word: What `admin` must give.
    """

    def __init__(self, port: int = 0, word: str = "") -> None:
        self._units = nal_units(150)
        self._key = base64.b64encode(f"admin:{word}".encode()).decode() if word else ""
        self._server = socket.create_server(("127.0.0.1", port))
        self.port = self._server.getsockname()[1]
        self._stop = threading.Event()
        self._clients: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Vanish, as if the plug was pulled."""
        self._stop.set()
        for one in (self._server, *self._clients):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def __enter__(self) -> RtspCamera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self._clients.append(client)
            threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        waiting = b""
        try:
            while more := client.recv(65536):
                waiting += more
                while b"\r\n\r\n" in waiting:
                    request, waiting = waiting.split(b"\r\n\r\n", 1)
                    self._reply(client, request.decode(errors="replace"))
        except OSError:
            return

    def _reply(self, client: socket.socket, request: str) -> None:
        method = request.split(" ", 1)[0]
        number = re.search(r"(?i)cseq: *(\d+)", request)
        lines = [f"CSeq: {number[1] if number else 0}"]
        status, body = "200 OK", ""
        if self._key and f"Basic {self._key}" not in request and method != "OPTIONS":
            status = "401 Unauthorized"
            lines.append('WWW-Authenticate: Basic realm="camera"')
        elif method == "OPTIONS":
            lines.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
        elif method == "DESCRIBE":
            body = self._description()
            lines += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
        elif method == "SETUP":
            lines += ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1"]
        else:
            lines.append("Session: 1")
        client.sendall(("\r\n".join([f"RTSP/1.0 {status}", *lines]) + "\r\n\r\n" + body).encode())
        if method == "PLAY":
            threading.Thread(target=self._play, args=(client,), daemon=True).start()

    def _description(self) -> str:
        sets = ",".join(base64.b64encode(unit).decode() for unit in self._units[0][:2])
        lines = (
            "v=0",
            "o=- 0 0 IN IP4 127.0.0.1",
            "s=camera",
            "t=0 0",
            "m=video 0 RTP/AVP 96",
            "a=rtpmap:96 H264/90000",
            f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sets}",
            "a=control:track1",
        )
        return "".join(f"{line}\r\n" for line in lines)

    def _play(self, client: socket.socket) -> None:
        sequence = 0
        try:
            for number in range(10**6):
                if self._stop.wait(0.25 / RATE):  # faster than it says, for the sake of the test
                    return
                units = self._units[number % len(self._units)]
                stamp = number * CLOCK // RATE
                for unit in units:
                    last = 0x80 if unit is units[-1] else 0
                    head = struct.pack(">BBHII", 0x80, 96 | last, sequence & 0xFFFF, stamp, 7)
                    packet = head + unit
                    client.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)
                    sequence += 1
        except OSError:
            return
