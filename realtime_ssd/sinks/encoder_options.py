"""`EncoderOptions`: encoder, quality and bit rate of annotated video."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from realtime_ssd.core.errors import UsageError

__all__ = ["ENCODERS", "AutoEncoder", "EncoderOptions", "parse_bitrate"]

AutoEncoder = Literal[
    "auto",
    "libx264",
    "libx265",
    "libsvtav1",
    "libvpx-vp9",
    "h264_nvenc",
    "hevc_nvenc",
    "av1_nvenc",
]
ENCODERS: tuple[AutoEncoder, ...] = get_args(AutoEncoder)
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}
_MIN_BITRATE, _MAX_BITRATE = 10_000, 1_000_000_000


@dataclass(frozen=True, slots=True)
class EncoderOptions:
    """How annotated video is encoded.

    By default the quality is constant, and limited so that the video is not larger than twice the
    source. With `quality` it is constant without a limit, with `bitrate` the size is.

    Attributes:
        encoder: Name of an FFmpeg encoder; "auto" takes NVENC where it opens and else the CPU.
        quality: From 1 (smallest) to 100 (best); 60 is the default of H.264.
        bitrate: Average bits per second.

    Raises:
        UsageError: If a value is out of range, or both `quality` and `bitrate` are set.
    """

    encoder: AutoEncoder = "auto"
    quality: int | None = None
    bitrate: int | None = None

    def __post_init__(self) -> None:
        if self.encoder not in ENCODERS:
            raise UsageError(
                f"there is no `encoder` '{self.encoder}'; use one of {', '.join(ENCODERS)}"
            )
        if self.quality is not None and self.bitrate is not None:
            raise UsageError("`quality` and `bitrate` exclude each other; set only one of them")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UsageError(f"`quality` must be from 1 to 100, not {self.quality}")
        if self.bitrate is not None and not _MIN_BITRATE <= self.bitrate <= _MAX_BITRATE:
            raise UsageError(
                f"`bitrate` must be from 10k to 1000M bits per second, not {self.bitrate}"
            )


def parse_bitrate(text: str) -> int:
    """Return bits per second.

    Args:
        text: A number with or without one of the units k, M and G.

    Raises:
        UsageError: If it is something else.

    Example:
        >>> parse_bitrate("2.5M"), parse_bitrate("800k")
        (2500000, 800000)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmg]?)(?:bit/s|bps)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise UsageError(f"`bitrate` must be a number such as 2500000, 800k or 4M, not '{text}'")
    return round(float(match[1]) * _UNITS[match[2].lower()])
