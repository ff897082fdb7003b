"""Targets of published video: URL schemes, formats, and names without secrets."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from realtime_ssd.core.errors import UsageError, redact
from realtime_ssd.sinks.containers import Container
from realtime_ssd.sources.formats import scheme_of

__all__ = ["HLS_SUFFIX", "PUBLISH_SCHEMES", "PublishTarget", "display_url", "publish_target"]

HLS_SUFFIX = ".m3u8"
_RTSP = {"rtsp_transport": "tcp"}
_FLV = {"flvflags": "no_duration_filesize"}
_BOTH = ("h264", "hevc")
_FORMATS = {
    "rtsp": Container("rtsp", "libx264", _BOTH, _RTSP),
    "rtsps": Container("rtsp", "libx264", _BOTH, _RTSP),
    "rtmp": Container("flv", "libx264", ("h264",), _FLV),
    "rtmps": Container("flv", "libx264", ("h264",), _FLV),
    "srt": Container("mpegts", "libx264", _BOTH),
    "udp": Container("mpegts", "libx264", _BOTH),
    "tcp": Container("mpegts", "libx264", _BOTH),
}
PUBLISH_SCHEMES = tuple(_FORMATS)
_SEGMENT_SECONDS, _LIVE_SEGMENTS = 2, 8


@dataclass(frozen=True, slots=True)
class PublishTarget:
    """Where and how video is published.

    Attributes:
        url: URL, or playlist file of HLS.
        name: The same without secrets, for messages.
        format: Format of the stream; its name is FFmpeg's.
        remote: Whether it is a URL, which may be lost and reconnected.
    """

    url: str
    name: str
    format: Container
    remote: bool


def publish_target(text: str, *, live: bool) -> PublishTarget:
    """Return the target that a text describes.

    Args:
        text: URL with one of `PUBLISH_SCHEMES`, or a file with the suffix ".m3u8".
        live: Whether the source is live: its HLS playlist holds the newest segments only.

    Raises:
        UsageError: If the URL is malformed or of another kind.
    """
    scheme = scheme_of(text)
    if not scheme:
        path = Path(os.path.abspath(text))  # FFmpeg takes a relative "a:b" for a URL
        options = _hls_options(path, live=live)
        return PublishTarget(
            str(path), text, Container("hls", "libx264", _BOTH, options), remote=False
        )
    name = display_url(text)
    if scheme not in _FORMATS:
        raise UsageError(
            f"'{name}' is not a supported output; publish to one of "
            f"{', '.join(f'{key}://' for key in PUBLISH_SCHEMES)}, or write a file"
        )
    try:
        host, port = urlsplit(text).hostname, urlsplit(text).port
    except ValueError:
        host = port = None
    if not host:
        raise UsageError(
            f"'{name}' is not a valid URL; use {scheme}://HOST:PORT/PATH, and percent-encode "
            "special characters of the password"
        )
    if scheme in ("srt", "udp", "tcp") and port is None:
        raise UsageError(f"'{name}' has no port; use {scheme}://HOST:PORT")
    url = scheme + text[len(scheme) :]  # FFmpeg knows schemes in lower case only
    return PublishTarget(url, name, _FORMATS[scheme], remote=True)


def _hls_options(playlist: Path, *, live: bool) -> dict[str, str]:
    """Return the options of the HLS muxer: a sliding window if live, else all segments."""
    stem = str(playlist.with_suffix("")).replace("%", "%%")
    options = {
        "hls_time": str(_SEGMENT_SECONDS),
        "hls_segment_filename": f"{stem}_%05d.ts",
        "hls_flags": "independent_segments",
    }
    if live:
        flags = "independent_segments+delete_segments+program_date_time"
        return {**options, "hls_list_size": str(_LIVE_SEGMENTS), "hls_flags": flags}
    return {**options, "hls_list_size": "0", "hls_playlist_type": "event"}


def display_url(url: str) -> str:
    """Return a URL without user names, passwords, tokens and stream keys.

    Example:
        >>> display_url("rtmp://live.example.com/app/abcd-1234")
        'rtmp://live.example.com/app/***'
    """
    shown = redact(url)
    if scheme_of(url) in ("rtmp", "rtmps"):
        address, question, _ = shown.partition("?")
        start = address.find("/", address.find("://") + 3)
        end = address.rstrip("/").rfind("/")
        if 0 < start < end:  # the last part of the path is the stream key
            return f"{address[:end]}/***"
        return address + ("?***" if question else "")
    return shown
