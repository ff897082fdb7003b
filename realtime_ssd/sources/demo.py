"""The synthetic street as a source: `demo[:WxH[@FPS][,seed=N][,frames=N]]`."""

from __future__ import annotations

import re
from fractions import Fraction

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.frames import Frame
from realtime_ssd.sources.base import BaseSource, InputLimits, SourceInfo
from realtime_ssd.synthetic import StreetScene

__all__ = ["DemoSource"]

_SIZE = re.compile(
    r"^(?:(?P<width>[0-9]{1,6})x(?P<height>[0-9]{1,6}))?"
    r"(?:@(?P<fps>[0-9]{1,6}(?:\.[0-9]{1,6})?))?$"
)
_DEFAULTS = {"seed": 0, "frames": 300}
_MAX_SIDE = 16384


class DemoSource(BaseSource):
    """Renders the street frame by frame, without dropping any, like a file.

    Args:
        text: Description as above. The defaults are 640x360 pixels, 30 frames per second, seed 0
            and 300 frames; `frames=0` never ends.
        limits: Limits of the source.

    Raises:
        UsageError: If the text is malformed or a value is out of range.
    """

    def __init__(self, text: str = "demo", *, limits: InputLimits | None = None) -> None:
        size, *options = text.removeprefix("demo").removeprefix(":").split(",")
        if "=" in size:
            size, options = "", [size, *options]
        width, height, fps = _parse_size(text, size)
        problem = (limits or InputLimits()).problem(width, height)
        if problem:
            raise UsageError(f"'{text}' {problem}")
        values = {**_DEFAULTS, **_parse_options(text, options)}
        self._frames = values["frames"]
        self._scene = StreetScene(width, height, seed=values["seed"], fps=float(fps))
        self._next = 0
        self.info = SourceInfo(
            text, width, height, rate=fps, time_base=1 / fps, frame_count=self._frames or None
        )

    def read(self) -> Frame | None:
        """See `Source.read`."""
        number = self._next
        if self._frames and number >= self._frames:
            return None
        self._next += 1
        info = self.info
        return Frame(self._scene.render(number), number, info.name, number, info.time_base)


def _malformed(text: str) -> UsageError:
    return UsageError(
        f"'{text}' is not a valid demo; use demo[:WxH[@FPS][,seed=N][,frames=N]], "
        "for example demo:1280x720@60,seed=3,frames=600"
    )


def _parse_size(text: str, size: str) -> tuple[int, int, Fraction]:
    match = _SIZE.match(size)
    if not match:
        raise _malformed(text)
    width, height = int(match["width"] or 640), int(match["height"] or 360)
    fps = Fraction(match["fps"] or 30)
    if not (min(width, height) >= 16 and max(width, height) <= _MAX_SIDE and 0 < fps <= 1000):
        raise UsageError(
            f"'{text}' is not a valid demo; the size must be between 16x16 and "
            f"{_MAX_SIDE}x{_MAX_SIDE}, and the rate at most 1000 frames per second"
        )
    return width, height, fps


def _parse_options(text: str, options: list[str]) -> dict[str, int]:
    values: dict[str, int] = {}
    for option in options:
        key, _, value = option.partition("=")
        if key not in _DEFAULTS or not re.fullmatch("[0-9]{1,9}", value):
            raise _malformed(text)
        values[key] = int(value)
    return values
