"""An RTSP camera: H.264 in RTP packets, interleaved on the TCP connection (RFC 2326, RFC 6184)."""

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

FRAME_RATE, CLOCK_RATE = 30, 90000
FIRST_LEVEL = 40
FIRST_TIMESTAMP = 1_000_000  # FFmpeg takes 0 for a time stamp that is not known yet


def encode_frames(
    count: int, key_frame_interval: int = 10, size: tuple[int, int] = (128, 96)
) -> list[list[bytes]]:
    """Encode uniformly gray frames, frame i of level 40 + i, and return the NAL units of each."""
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = *size, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, FRAME_RATE), Fraction(FRAME_RATE)
    encoder.gop_size = key_frame_interval
    encoder.options = {
        "tune": "zerolatency",
        "x264-params": "repeat-headers=1:sliced-threads=0:scenecut=0",
    }
    units = []
    for number in range(count):
        image = np.full((size[1], size[0], 3), FIRST_LEVEL + number, np.uint8)
        frame = av.VideoFrame.from_ndarray(image, format="bgr24")
        frame.pts = number
        for packet in encoder.encode(frame):
            units.append([part for part in re.split(b"\0\0\0?\1", bytes(packet)) if part])
    return units


class RtspCamera:
    """Serves the same 150 frames in a loop to any number of clients.

    Args:
        port: TCP port; any free one by default.
        password: Password of the user `admin`; none by default.
        key_frame_interval: Frames from one key frame to the next.
    """

    def __init__(self, port: int = 0, password: str = "", key_frame_interval: int = 10) -> None:
        self._units = encode_frames(150, key_frame_interval)
        credentials = base64.b64encode(f"admin:{password}".encode()).decode()
        self._credentials = credentials if password else ""
        self._server = socket.create_server(("127.0.0.1", port))
        self.port = self._server.getsockname()[1]
        self.url = f"rtsp://127.0.0.1:{self.port}/live"
        self._stopped = threading.Event()
        self._clients: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Drop all connections, as if the power was cut."""
        self._stopped.set()
        for connection in (self._server, *self._clients):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def __enter__(self) -> RtspCamera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self._clients.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        received = b""
        try:
            while data := client.recv(65536):
                received += data
                while b"\r\n\r\n" in received:
                    request, received = received.split(b"\r\n\r\n", 1)
                    self._reply(client, request.decode(errors="replace"))
        except OSError:
            return

    def _reply(self, client: socket.socket, request: str) -> None:
        method = request.split(" ", 1)[0]
        sequence = re.search(r"(?i)cseq: *(\d+)", request)
        headers = [f"CSeq: {sequence[1] if sequence else 0}"]
        status, body = "200 OK", ""
        authorized = not self._credentials or f"Basic {self._credentials}" in request
        if not authorized and method != "OPTIONS":
            status = "401 Unauthorized"
            headers.append('WWW-Authenticate: Basic realm="camera"')
        elif method == "OPTIONS":
            headers.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
        elif method == "DESCRIBE":
            body = self._description()
            headers += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
        elif method == "SETUP":
            headers += ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1"]
        else:
            headers.append("Session: 1")
        head = "\r\n".join([f"RTSP/1.0 {status}", *headers])
        client.sendall(f"{head}\r\n\r\n{body}".encode())
        if method == "PLAY":
            threading.Thread(target=self._play, args=(client,), daemon=True).start()

    def _description(self) -> str:
        parameter_sets = ",".join(base64.b64encode(unit).decode() for unit in self._units[0][:2])
        lines = (
            "v=0",
            "o=- 0 0 IN IP4 127.0.0.1",
            "s=camera",
            "t=0 0",
            "m=video 0 RTP/AVP 96",
            f"a=rtpmap:96 H264/{CLOCK_RATE}",
            f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={parameter_sets}",
            "a=control:track1",
        )
        return "".join(f"{line}\r\n" for line in lines)

    def _play(self, client: socket.socket) -> None:
        sequence = 0
        try:
            for number in range(10**6):
                if self._stopped.wait(0.25 / FRAME_RATE):  # four times as fast, for short tests
                    return
                units = self._units[number % len(self._units)]
                timestamp = FIRST_TIMESTAMP + number * CLOCK_RATE // FRAME_RATE
                for unit in units:
                    marker = 0x80 if unit is units[-1] else 0
                    header = struct.pack(
                        ">BBHII", 0x80, 96 | marker, sequence & 0xFFFF, timestamp, 7
                    )
                    packet = header + unit
                    client.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)
                    sequence += 1
        except OSError:
            return
