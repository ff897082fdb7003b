"""What the user names as sources, and the parts of them to use."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Literal

from realtime_ssd.cli.command import commands
from realtime_ssd.cli.options import InputOptions
from realtime_ssd.core.errors import UsageError
from realtime_ssd.sources import SourceOptions
from realtime_ssd.sources.base import InputLimits

__all__ = ["name_sources", "parse_roi", "parse_seconds", "source_options"]

_WORD = re.compile(r"^[a-z][a-z-]*$")
_TIME = re.compile(r"^(?:(?:([0-9]+):)?([0-9]+):)?([0-9]+(?:\.[0-9]*)?|\.[0-9]+)$")


def name_sources(
    positional: Sequence[str],
    cameras: Sequence[str],
    videos: Sequence[str],
    sources: Sequence[str],
) -> list[str]:
    """Return the texts for `open_sources`.

    Args:
        positional: Arguments without an option.
        cameras: Values of --camera.
        videos: Values of --video, which mean files even where they look like a camera or the demo.
        sources: Values of --source.

    Raises:
        UsageError: If there is none, or one is a misspelled command or an option without a value.
    """
    for word in positional:
        _check_not_command(word)
    for option, values in (("camera", cameras), ("video", videos), ("source", sources)):
        for value in values:
            if value.startswith("--") and not os.path.lexists(value):
                raise UsageError(f"`{option}` has no value before '{value}'; name the source")
    names = [*positional, *map(_as_camera, cameras), *map(_as_file, videos), *sources]
    if not names:
        raise UsageError(
            "no source was specified; name a file, folder, URL, camera number or 'demo', for "
            "example realtime-ssd demo --output street.mp4 (see realtime-ssd detect --help)"
        )
    return names


def _check_not_command(word: str) -> None:
    """Report a single word that is no source, since it was probably meant as a command."""
    from realtime_ssd.sources.opening import is_source

    if not _WORD.match(word) or is_source(word):
        return
    close = get_close_matches(word, commands(), n=1)
    hint = f"did you mean '{close[0]}'" if close else "see realtime-ssd --help"
    raise UsageError(f"there is no command '{word}' and no such source; {hint}")


def _as_camera(camera: str) -> str:
    return camera if camera.startswith("camera:") else f"camera:{camera}"


def _as_file(video: str) -> str:
    if video.isdecimal() or video.partition(":")[0] in ("demo", "camera"):
        return f"./{video}"
    return video


def source_options(inputs: InputOptions, decoder: Literal["cpu", "gpu"]) -> SourceOptions:
    """Return the options of all sources.

    Raises:
        UsageError: If a value is malformed or out of range.
    """
    return SourceOptions(
        decoder=decoder,
        recursive=inputs.recursive,
        interval=inputs.interval,
        wait=inputs.wait,
        start=0.0 if inputs.start is None else parse_seconds("start", inputs.start),
        end=None if inputs.end is None else parse_seconds("end", inputs.end),
        frame_step=inputs.frame_step,
        limits=InputLimits(inputs.max_pixels, inputs.local_redirects),
    )


def parse_seconds(name: str, text: str) -> float:
    """Return the seconds of a time such as "90", "1:30" or "0:01:30.5".

    Args:
        name: Name of the parameter, for the error.
        text: The time.

    Raises:
        UsageError: If it is malformed.

    Example:
        >>> parse_seconds("start", "0:01:30.5")
        90.5
    """
    match = _TIME.match(text.strip())
    if match is None:
        raise UsageError(
            f"`{name}` must be a time in seconds or as hours:minutes:seconds, for example 90.5 or "
            f"0:01:30.5, not '{text}'"
        )
    hours, minutes, seconds = match.groups()
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds)


def parse_roi(text: str) -> tuple[int, int, int, int]:
    """Return the rectangle of "x,y,width,height" in pixels.

    Raises:
        UsageError: If it is malformed or empty.
    """
    values = [value.strip() for value in text.split(",")]
    if len(values) == 4 and all(re.match(r"^[0-9]{1,6}$", value) for value in values):
        x, y, width, height = map(int, values)
        if width and height:
            return x, y, width, height
    raise UsageError(
        f"`roi` must be x,y,width,height in pixels, for example 0,120,640,240, not '{text}'"
    )
