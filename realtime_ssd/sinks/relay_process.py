"""The process that sends published video: `python -m realtime_ssd.sinks.relay_process FORMAT`.

It copies the packets of a NUT stream from standard input to a URL, and writes a line to standard
output once the server has accepted them. FFmpeg blocks all threads of a Python process while it
connects, and some servers never answer; a process can be ended at any moment.
"""

from __future__ import annotations

import json
import os
import sys

import cv2  # noqa: F401 # isort: skip - before PyAV, see `realtime_ssd.sources`
import av

from realtime_ssd.core.errors import redact
from realtime_ssd.sources.ffmpeg import error_reason

__all__ = ["URL_VARIABLE", "main"]

URL_VARIABLE = "REALTIME_SSD_PUBLISH_URL"
"""Environment variable with the URL, which would be visible to other users as an argument."""

_INPUT = {"probesize": "100000", "analyzeduration": "0", "fpsprobesize": "0"}


def main() -> None:
    """Run until the end of standard input; exit with status 1 and the reason after a failure."""
    url, format_name, options = os.environ.pop(URL_VARIABLE), sys.argv[1], json.loads(sys.argv[2])
    try:
        with (
            # A buffered stream would wait until its buffer is full.
            open(0, "rb", buffering=0) as stream_of_packets,
            av.open(stream_of_packets, format="nut", options=_INPUT) as source,
            av.open(url, "w", format_name, options=options) as output,
        ):
            video = source.streams.video[0]
            stream = output.add_stream_from_template(video)
            output.start_encoding()
            print("connected", flush=True)
            for packet in source.demux(video):
                if packet.dts is not None:
                    packet.stream = stream
                    output.mux(packet)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        print(_reason(error), file=sys.stderr)
        sys.exit(1)


def _reason(error: Exception) -> str:
    if isinstance(error, av.error.ProtocolNotFoundError):
        return "this FFmpeg does not have the protocol"
    if isinstance(error, av.error.InvalidDataError):
        return "the server refused the stream"
    if isinstance(error, av.error.FFmpegError | OSError):
        return error_reason(error)
    return redact(str(error))


if __name__ == "__main__":
    main()
