"""Decoding on the GPU: frames stay where NVDEC left them, in the memory the kernels read.

FFmpeg decodes in the GPU's primary context, the one that PyCUDA and TensorRT use too, and works on
its default stream, for which every stream of the frame slots waits. A frame is brought to the
host only when somebody asks for its pixels, to draw on them for instance.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

import av
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.container import InputContainer

from realtime_ssd.core.frames import Surface
from realtime_ssd.core.gpu import cuda_version, find_gpus

__all__ = ["obstacle", "open_on_gpu", "surface_of"]

HELD = 16
"""Frames that may wait in the loop beyond those the decoder needs for itself."""

_BT709, _BT601 = (1,), (0, 2, 5, 6)  # AVColorSpace; FFmpeg takes an untold one for BT.601
_FULL = 2  # AVColorRange


@cache
def obstacle() -> str:
    """Say why videos cannot be decoded on the GPU of this machine; empty if nothing is known."""
    if cuda_version() is None:
        return "there is no NVIDIA driver"
    if not find_gpus():
        return "the driver shows no GPU"
    if not hasattr(av.VideoFrame, "sw_format"):
        return f"PyAV {av.__version__} does not say how a frame lies in GPU memory (18 does)"
    if "cuda" not in hwdevices_available():
        return "this FFmpeg was built without CUDA"
    try:
        ctypes.CDLL("nvcuvid.dll" if sys.platform == "win32" else "libnvcuvid.so.1")
    except OSError:
        return (
            "the driver's decoding library libnvcuvid is absent (a container needs "
            "NVIDIA_DRIVER_CAPABILITIES with 'video')"
        )
    return ""


def open_on_gpu(path: str, timeout: float | None) -> tuple[InputContainer | None, str]:
    """Open a video for decoding on the first GPU.

    Args:
        path: File or URL.
        timeout: Seconds that opening and each read may take.

    Returns:
        The container, or None with the reason.
    """
    reason = obstacle()
    if reason:
        return None, reason
    wish = HWAccel("cuda", device=0, allow_software_fallback=True, is_hw_owned=True)
    try:
        container = av.open(path, timeout=timeout, hwaccel=wish)
    except NotImplementedError:
        return None, "NVDEC does not know this codec"
    except av.error.FFmpegError as error:
        return None, (error.strerror or "unknown error").lower()
    for stream in container.streams.video[:1]:
        stream.codec_context.options["extra_hw_frames"] = str(HELD)
    return container, ""


def surface_of(frame: av.VideoFrame) -> Surface | None:
    """Describe a frame's NV12 planes where they are.

    Args:
        frame: A decoded frame, its planes in any memory.

    Returns:
        The surface, which keeps the frame alive; None if the kernels cannot read it (10 bits, other
        chroma, other colours than BT.601 and BT.709, odd sizes, turned pictures).
    """
    layout = getattr(frame, "sw_format", None) or frame.format
    known = frame.colorspace in (*_BT709, *_BT601)
    even = frame.width % 2 == 0 and frame.height % 2 == 0
    if layout.name != "nv12" or not known or not even or round(frame.rotation) % 360:
        return None
    luma, chroma = frame.planes
    return Surface(
        width=frame.width,
        height=frame.height,
        planes=(luma.buffer_ptr, chroma.buffer_ptr),
        pitches=(luma.line_size, chroma.line_size),
        standard="bt709" if frame.colorspace in _BT709 else "bt601",
        full_range=frame.color_range == _FULL,
        owner=frame,
    )
