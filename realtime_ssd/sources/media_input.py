"""How media are opened with FFmpeg: permitted protocols and the largest frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2  # noqa: F401 # isort: skip - before PyAV, see `realtime_ssd.sources`
import av
from av.container import InputContainer
from av.video.stream import VideoStream

from realtime_ssd.core.errors import SourceError, redact
from realtime_ssd.sources.base import InputLimits
from realtime_ssd.sources.formats import scheme_of

if TYPE_CHECKING:
    from av.codec.hwaccel import HWAccel

__all__ = ["open_input", "pixel_problem"]

_HTTP = "http,https,httpproxy,tcp,tls,crypto"
_RTSP = "rtp,srtp,udp,tcp,tls,http,https,httpproxy"
_RTMP = "rtmp,rtmpe,rtmps,rtmpt,rtmpte,rtmpts,ffrtmpcrypt,ffrtmphttp,tcp,tls,http,https"
_PROTOCOLS = {
    "http": _HTTP,
    "https": _HTTP,
    "rtsp": _RTSP,
    "rtsps": _RTSP,
    "rtmp": _RTMP,
    "rtmps": _RTMP,
    "udp": "udp,rtp",
    "rtp": "rtp,srtp,udp",
    "srt": "srt,udp",
    "tcp": "tcp",
}
"""Protocols that FFmpeg may open for each kind of URL. A playlist, a redirect or a description of a
session cannot lead elsewhere, above all not to files."""
_FILE = "file,pipe,fd,crypto"
_PLAYLISTS = frozenset({"hls", "dash", "concat", "imf", "rtsp", "sdp"})


def open_input(
    location: str,
    *,
    limits: InputLimits | None = None,
    options: dict[str, str] | None = None,
    timeout: float | tuple[float, float] | None = None,
    hwaccel: HWAccel | None = None,
) -> InputContainer:
    """Open a file or URL with FFmpeg.

    Args:
        location: File or URL.
        limits: Limits of the source.
        options: Further options of FFmpeg.
        timeout: Limit in seconds for opening and for each read, or both; None for none.
        hwaccel: Hardware decoder.

    Raises:
        av.error.FFmpegError: If it cannot be opened.
        SourceError: If it leads to a local address and `limits` forbids that.
    """
    limits = limits or InputLimits()
    checked = not limits.local_redirects and scheme_of(location) in ("http", "https")
    if checked:
        from realtime_ssd.sources.redirects import follow_redirects

        location = follow_redirects(location)
        options = {**(options or {}), "max_redirects": "0"}
    container = av.open(
        location,
        options={
            "protocol_whitelist": _PROTOCOLS.get(scheme_of(location), _FILE),
            "max_pixels": str(limits.max_pixels),
            **(options or {}),
        },
        timeout=timeout,
        hwaccel=hwaccel,
        metadata_errors="replace",
    )
    if checked and not {*container.format.name.split(",")}.isdisjoint(_PLAYLISTS):
        container.close()
        raise SourceError(
            f"'{redact(location)}' is a playlist, whose entries may lead to local addresses; "
            "set `local_redirects` if you trust the server"
        )
    return container


def pixel_problem(name: str, stream: VideoStream, limits: InputLimits) -> str:
    """Return what is wrong with the declared size of a video; empty if it can be decoded."""
    context = stream.codec_context
    problem = limits.problem(context.width, context.height)
    return f"'{name}' {problem}" if problem else ""
