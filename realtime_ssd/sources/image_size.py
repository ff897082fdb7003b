"""Width and height in the headers of image files, read before an image is decoded."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

__all__ = ["declared_size"]

Size = tuple[int, int]

_MAX_SEGMENTS = 10_000
_START_OF_FRAME = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_TIFF_TYPES = {3: "H", 4: "I", 16: "Q"}
_NETPBM = re.compile(rb"P([1-6FfX])(?:\s+(?:#[^\n]*\n)?)+(\d+)(?:\s+(?:#[^\n]*\n)?)+(\d+)\s")
_PAM = re.compile(rb"P7\s(?:(?!ENDHDR).)*?WIDTH\s+(\d+)(?:(?!ENDHDR).)*?HEIGHT\s+(\d+)", re.DOTALL)
_RADIANCE = re.compile(rb"#\?[^\0]*?\n[-+]Y (\d+) [-+]X (\d+)\n")
_EXR_WINDOW = b"dataWindow\0box2i\0\x10\0\0\0"
_HEIF_SIZE = re.compile(rb"ispe\0\0\0\0(.{8})", re.DOTALL)


def declared_size(data: bytes) -> Size | None:
    """Return width and height in the header of an image, before a rotation by its EXIF data.

    Args:
        data: The image file.

    Returns:
        The size in pixels, the largest one where a file has several; None if the format is unknown
        or the header is damaged.
    """
    head = data[:32]
    for magic, read in _READERS:
        if re.match(magic, head, re.DOTALL):
            try:
                return read(data)
            except (IndexError, struct.error, ValueError):
                return None
    return None


def _png(data: bytes) -> Size | None:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _jpeg(data: bytes) -> Size | None:
    """Read the segments up to the first frame header."""
    position = 2
    for _ in range(_MAX_SEGMENTS):
        position = data.index(b"\xff", position)  # decoders skip bytes between segments, too
        while data[position] == 0xFF:
            position += 1
        marker = data[position]
        position += 1
        if marker in _START_OF_FRAME:
            height, width = struct.unpack_from(">HH", data, position + 3)
            return width, height
        if marker == 0xD9:
            return None
        if marker not in _WITHOUT_LENGTH:
            position += struct.unpack_from(">H", data, position)[0]
    return None


def _bmp(data: bytes) -> Size | None:
    if struct.unpack_from("<I", data, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return abs(width), abs(height)


def _webp(data: bytes) -> Size | None:
    kind = data[12:16]
    if kind == b"VP8X":
        numbers = data[24:30]
        width, height = numbers[:3], numbers[3:]
        return int.from_bytes(width, "little") + 1, int.from_bytes(height, "little") + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _tiff(data: bytes) -> Size | None:
    """Read the first directory of a TIFF or BigTIFF file; others are pages that are not read."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    word, count_type, length = ("Q", "Q", 20) if big else ("I", "H", 12)
    (start,) = struct.unpack_from(order + word, data, 8 if big else 4)
    (count,) = struct.unpack_from(order + count_type, data, start)
    sizes: dict[int, int] = {}
    start += struct.calcsize(order + count_type)
    for number in range(min(count, 4096)):
        tag, kind = struct.unpack_from(f"{order}HH", data, start + number * length)
        if tag in (256, 257) and kind in _TIFF_TYPES:
            place = start + number * length + (12 if big else 8)
            (sizes[tag],) = struct.unpack_from(order + _TIFF_TYPES[kind], data, place)
    return (sizes[256], sizes[257]) if len(sizes) == 2 else None


def _jpeg2000(data: bytes) -> Size | None:
    """Read the SIZ marker of the codestream, which follows its start."""
    start = data.index(b"\xff\x4f\xff\x51")
    right, bottom, left, top = struct.unpack_from(">IIII", data, start + 8)
    return right - left, bottom - top


def _heif(data: bytes) -> Size | None:
    sizes = [struct.unpack(">II", size) for size in _HEIF_SIZE.findall(data[: 1 << 20])]
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _gif(data: bytes) -> Size | None:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _sun_raster(data: bytes) -> Size | None:
    width, height = struct.unpack_from(">II", data, 4)
    return width, height


def _exr(data: bytes) -> Size | None:
    start = data[: 1 << 16].index(_EXR_WINDOW) + len(_EXR_WINDOW)
    left, top, right, bottom = struct.unpack_from("<iiii", data, start)
    return right - left + 1, bottom - top + 1


def _netpbm(data: bytes) -> Size | None:
    match = _NETPBM.match(data[:4096])
    return (int(match[2]), int(match[3])) if match else None


def _pam(data: bytes) -> Size | None:
    match = _PAM.match(data[:4096])
    return (int(match[1]), int(match[2])) if match else None


def _radiance(data: bytes) -> Size | None:
    match = _RADIANCE.match(data[:4096])
    return (int(match[2]), int(match[1])) if match else None


_READERS: tuple[tuple[bytes, Callable[[bytes], Size | None]], ...] = (
    (rb"\x89PNG\r\n\x1a\n", _png),
    (rb"\xff\xd8", _jpeg),
    (rb"BM", _bmp),
    (rb"RIFF....WEBP", _webp),
    (rb"II[*+]\0|MM\0[*+]", _tiff),
    (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", _jpeg2000),
    (rb"....ftyp", _heif),
    (rb"GIF8[79]a", _gif),
    (rb"\x59\xa6\x6a\x95", _sun_raster),
    (rb"\x76\x2f\x31\x01", _exr),
    (rb"P[1-6FfX]\s", _netpbm),
    (rb"P7\s", _pam),
    (rb"#\?", _radiance),
)
