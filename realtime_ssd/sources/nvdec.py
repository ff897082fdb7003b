"""Decoding on the GPU: frames stay in GPU memory, where the kernels read them.

FFmpeg decodes in the GPU's primary context, which PyCUDA and TensorRT share. NVDEC has at most 32
surfaces, and FFmpeg copies each frame out of them on the GPU, so that the pipeline may hold any
number of frames without stopping the decoder. The copy runs on the context's default stream; a
frame slot that reads the frame waits for that stream. A frame is downloaded only when its pixels
are read, for example to draw on them.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

import cv2  # noqa: F401 # isort: skip - before PyAV, see `realtime_ssd.sources`
import av
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.container import InputContainer

from realtime_ssd.core.frames import Surface
from realtime_ssd.core.gpu import cuda_version, find_gpus
from realtime_ssd.sources.base import InputLimits
from realtime_ssd.sources.ffmpeg import error_reason, orientation_of
from realtime_ssd.sources.media_input import open_input
from realtime_ssd.sources.tone_mapping import is_hdr

__all__ = ["open_on_gpu", "surface_of", "unavailable_reason"]

# Values of AVColorSpace; FFmpeg treats unspecified (2) and reserved ones as BT.601.
_BT709, _BT601 = (1,), (0, 2, 5, 6)
_FULL_RANGE = 2  # value of AVColorRange


@cache
def unavailable_reason() -> str:
    """Return why this machine cannot decode videos on a GPU; an empty string if nothing is wrong.

    A codec that NVDEC does not support is found only when a file is opened.
    """
    if cuda_version() is None:
        return "there is no NVIDIA driver"
    if not find_gpus():
        return "the driver finds no GPU"
    if not hasattr(av.VideoFrame, "sw_format"):
        return f"PyAV {av.__version__} does not report the layout of frames in GPU memory (18 does)"
    if "cuda" not in hwdevices_available():
        return "this FFmpeg was built without CUDA"
    try:
        ctypes.CDLL("nvcuvid.dll" if sys.platform == "win32" else "libnvcuvid.so.1")
    except OSError:
        return (
            "the driver's decoding library libnvcuvid is missing (a container needs "
            "NVIDIA_DRIVER_CAPABILITIES with 'video')"
        )
    return ""


def open_on_gpu(
    path: str, timeout: float | None, limits: InputLimits | None = None
) -> tuple[InputContainer | None, str]:
    """Open a video for decoding on the first GPU.

    Args:
        path: File or URL.
        timeout: Limit in seconds for opening and for each read, or None.
        limits: Limits of the source.

    Returns:
        The container and an empty string, or None and the reason why the CPU has to decode.
    """
    reason = unavailable_reason()
    if reason:
        return None, reason
    acceleration = HWAccel("cuda", device=0, allow_software_fallback=True, is_hw_owned=True)
    try:
        container = open_input(path, limits=limits, timeout=timeout, hwaccel=acceleration)
    except NotImplementedError:
        return None, "NVDEC does not support this codec"
    except av.error.FFmpegError as error:
        return None, error_reason(error)
    return container, ""


def surface_of(frame: av.VideoFrame) -> Surface | None:
    """Describe the NV12 planes of a decoded frame in place.

    Args:
        frame: Decoded frame, with its planes in host or GPU memory.

    Returns:
        The surface, which keeps the frame alive; None if the kernels cannot read it (10 bits, other
        chroma subsampling, colors other than BT.601 and BT.709, odd sizes, rotated or mirrored).
    """
    layout = getattr(frame, "sw_format", None) or frame.format
    supported = frame.colorspace in (*_BT709, *_BT601)
    even = frame.width % 2 == 0 and frame.height % 2 == 0
    if (
        is_hdr(frame)
        or layout.name != "nv12"
        or not supported
        or not even
        or any(orientation_of(frame))
    ):
        return None
    luma, chroma = frame.planes
    return Surface(
        width=frame.width,
        height=frame.height,
        planes=(luma.buffer_ptr, chroma.buffer_ptr),
        pitches=(luma.line_size, chroma.line_size),
        standard="bt709" if frame.colorspace in _BT709 else "bt601",
        full_range=frame.color_range == _FULL_RANGE,
        owner=frame,
    )
