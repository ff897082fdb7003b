"""Tone mapping of HDR video (PQ and HLG) to the range and colors of ordinary video.

FFmpeg's filter `lut3d` applies a table of colors to each frame. The table is computed once: PQ and
HLG are converted to linear light with the formulas of ITU-R BT.2100, to the primaries of BT.709 by
BT.2087, compressed by FFmpeg's filter `tonemap`, and encoded for a display.
"""

from __future__ import annotations

import tempfile
import threading
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import cast

import cv2  # noqa: F401 # isort: skip - before PyAV, see `realtime_ssd.sources`
import av
import numpy as np
from av.filter import Graph
from av.video.plane import VideoPlane
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

__all__ = ["ToneMapper", "is_hdr"]

_PQ, _HLG = 16, 18  # values of AVColorTransferCharacteristic
_SIDE = 33  # grid points of the table along each axis
_WHITE = 203.0  # luminance of white paper in HDR, in cd/m² (ITU-R BT.2408)
_PEAK = 1000.0  # luminance that becomes the brightest white, in cd/m²
_BT2020_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
)
_GBR = (1, 2, 0)  # channel of each plane
_BT2020_LUMA = np.array([0.2627, 0.6780, 0.0593])

Array = NDArray[np.float64]


def is_hdr(frame: av.VideoFrame) -> bool:
    """Return whether a frame has the transfer function PQ or HLG."""
    return frame.color_trc in (_PQ, _HLG)


class ToneMapper:
    """Converts HDR frames to BGR; for one thread.

    Args:
        reformatter: Converts between pixel formats.
    """

    def __init__(self, reformatter: VideoReformatter) -> None:
        self._reformatter = reformatter
        self._graphs: dict[tuple[int, int, int], Graph] = {}

    def to_bgr24(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return an HDR frame as an ordinary frame of the format `bgr24`, not turned."""
        transfer = int(frame.color_trc)
        if frame.format.name == "cuda":
            frame = self._reformatter.reformat(frame, format="p010le")
        rgb = self._reformatter.reformat(frame, format="gbrp10le", threads=1)
        key = (transfer, rgb.width, rgb.height)
        graph = self._graphs.get(key)
        if graph is None:
            self._graphs.clear()  # the size of a stream changes rarely
            graph = self._graphs[key] = _graph(rgb, _table_file(transfer))
        graph.push(rgb)
        mapped = graph.pull()
        if not isinstance(mapped, av.VideoFrame):
            raise TypeError(type(mapped).__name__)
        return mapped


def _graph(frame: av.VideoFrame, table: Path) -> Graph:
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1)
    )
    lut = graph.add("lut3d", file=str(table), interp="tetrahedral")
    bgr = graph.add("format", "bgr24")
    sink = graph.add("buffersink")
    source.link_to(lut)
    lut.link_to(bgr)
    bgr.link_to(sink)
    graph.configure()
    return graph


_table_lock = threading.Lock()


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder for the tables, which the end of the program removes."""
    return tempfile.TemporaryDirectory(prefix="realtime-ssd-")


def _table_file(transfer: int) -> Path:
    """Return the table of a transfer function as a file that `lut3d` reads."""
    path = Path(_folder().name) / f"{transfer}.cube"
    with _table_lock:
        if not path.exists():
            rows = "\n".join(
                " ".join(f"{value:.6f}" for value in color) for color in _table(transfer)
            )
            path.write_text(f"LUT_3D_SIZE {_SIDE}\n{rows}\n", encoding="ascii")
    return path


def _table(transfer: int) -> Array:
    """Return the color of every grid point, N × 3 from 0 to 1, red changing fastest."""
    steps = np.linspace(0.0, 1.0, _SIDE)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    code = np.stack([red, green, blue], -1).reshape(-1, 3)
    luminance = _pq_luminance(code) if transfer == _PQ else _hlg_luminance(code)
    linear = np.clip(luminance / _WHITE @ _BT2020_TO_BT709.T, 0.0, _PEAK / _WHITE)
    mapped = np.clip(_compress(linear), 0.0, 1.0)
    return np.where(mapped <= 0.0031308, mapped * 12.92, 1.055 * mapped ** (1 / 2.4) - 0.055)


def _pq_luminance(code: Array) -> Array:
    """Return the luminance in cd/m² of PQ code values from 0 to 1 (BT.2100, table 4)."""
    power = code ** (1 / 78.84375)
    ratio = np.maximum(power - 0.8359375, 0.0) / (18.8515625 - 18.6875 * power)
    return np.asarray(10000.0 * ratio ** (1 / 0.1593017578125))


def _hlg_luminance(code: Array) -> Array:
    """Return the luminance in cd/m² of HLG code values on a display of 1000 cd/m² (table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
    luma = scene @ _BT2020_LUMA
    return np.asarray(1000.0 * luma[:, None] ** 0.2 * scene)


def _compress(linear: Array) -> Array:
    """Compress linear light, N × 3 with white at 1, to at most 1 with FFmpeg's `tonemap`."""
    frame = av.VideoFrame(len(linear), 1, "gbrpf32le")
    for plane, channel in zip(frame.planes, _GBR, strict=True):
        _samples(plane)[: len(linear)] = linear[:, channel]
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=1, format=frame.format, time_base=Fraction(1)
    )
    tonemap = graph.add("tonemap", tonemap="mobius", desat="0", peak=str(_PEAK / _WHITE))
    sink = graph.add("buffersink")
    source.link_to(tonemap)
    tonemap.link_to(sink)
    graph.configure()
    graph.push(frame)
    mapped = graph.pull()
    if not isinstance(mapped, av.VideoFrame):
        raise TypeError(type(mapped).__name__)
    result = np.empty_like(linear)
    for plane, channel in zip(mapped.planes, _GBR, strict=True):
        result[:, channel] = _samples(plane)[: len(linear)]
    return result


def _samples(plane: VideoPlane) -> NDArray[np.float32]:
    return np.frombuffer(cast("memoryview", plane), np.float32)
