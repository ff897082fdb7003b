"""Clips that flash and beep at the same moment, and the measurement of both in any file."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from numpy.typing import NDArray

from realtime_ssd import Detections, open_source
from realtime_ssd.core.frames import Image
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.video import VideoSink

FLASH_FRAME, FRAMES, SAMPLE_RATE = 20, 40, 48000
TIME_BASE = Fraction(1, 1000)
COLORS = ((200, 60, 60), (60, 200, 60), (60, 60, 200), (60, 200, 200))
"""BGR of the quarters: upper left and right, lower left and right."""


def make_clip(
    path: Path,
    *,
    codec: str = "libx264",
    sounds: Sequence[str] = ("aac",),
    times: Sequence[int] = tuple(range(0, 40 * FRAMES, 40)),
    start: int = 0,
    late: float = 0.0,
    b_frames: int = 0,
    size: tuple[int, int] = (96, 64),
) -> Path:
    """Write a clip of four colored quarters that turns white for three frames.

    Args:
        path: File to write; it is returned.
        codec: Encoder of the video.
        sounds: Encoder of each sound track.
        times: Time of each frame in milliseconds, from 0.
        start: Milliseconds added to all times.
        late: Seconds without sound at the beginning.
        b_frames: Consecutive B-frames of the video.
        size: Width and height in pixels.
    """
    with av.open(str(path), "w") as container:
        options = {"bf": str(b_frames), "crf": "20", "g": "50", "deadline": "realtime"}
        video = container.add_stream(codec, 25, options=options)
        video.width, video.height = size
        video.pix_fmt = "yuv444p" if size[0] % 2 else "yuv420p"
        if path.suffix != ".avi":
            video.codec_context.time_base = TIME_BASE
        tracks = [container.add_stream(name, SAMPLE_RATE, layout="mono") for name in sounds]
        for number, track in enumerate(tracks):
            track.metadata["language"] = ("ger", "fra")[number]
        for track in tracks:
            if isinstance(track, AudioStream):
                beep = times[FLASH_FRAME] / 1000
                for tone in _sound(track, times[-1] / 1000, beep, late, start):
                    container.mux(track.encode(tone))
                container.mux(track.encode())
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(clip_image(number, size), format="bgr24")
            frame.pts, frame.time_base = start + time, TIME_BASE
            if path.suffix == ".avi":
                frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode())
    return path


def clip_image(number: int, size: tuple[int, int]) -> Image:
    """Return a frame of the clip."""
    image = np.full((size[1], size[0], 3), 255, np.uint8)
    if number not in range(FLASH_FRAME, FLASH_FRAME + 3):
        half, middle = size[1] // 2, size[0] // 2
        image[:half, :middle], image[:half, middle:] = COLORS[0], COLORS[1]
        image[half:, :middle], image[half:, middle:] = COLORS[2], COLORS[3]
    return image


def _sound(
    track: AudioStream, seconds: float, beep: float, late: float, start: int
) -> list[av.AudioFrame]:
    moments = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    wave = np.where((moments >= beep) & (moments < beep + 0.12), np.sin(moments * 6000), 0) * 20000
    samples = wave[int(late * SAMPLE_RATE) :].astype(np.int16)[None]
    tone = av.AudioFrame.from_ndarray(samples, "s16", "mono")
    tone.sample_rate = SAMPLE_RATE
    tone.pts = int(late * SAMPLE_RATE) + start * SAMPLE_RATE // 1000
    size = track.codec_context.frame_size or 1024
    return list(av.AudioResampler(track.format, "mono", SAMPLE_RATE, size).resample(tone))


def annotate(source_path: Path | str, target: Path) -> None:
    """Write a video through the program's source and sink."""
    with open_source(source_path) as source, VideoSink(target, source.info) as sink:
        for frame in source:
            sink.write(FrameResult(frame, Detections.empty()))


def frames_of(path: Path) -> tuple[list[float], list[NDArray[np.uint8]]]:
    """Return times in seconds and BGR images of all frames, as FFmpeg decodes them."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    images = [np.asarray(frame.to_ndarray(format="bgr24"), np.uint8) for frame in frames]
    return [float(frame.time or 0) for frame in frames], images


def flash_time(path: Path) -> float:
    """Return the time of the first white frame in seconds."""
    times, images = frames_of(path)
    if path.suffix == ".avi":  # has decoding times only, from 0
        times = [time - times[0] for time in sorted(times)]
    return next(t for t, image in zip(times, images, strict=True) if image.mean() > 220)


def beep_time(path: Path, track: int = 0) -> float:
    """Return the time of the first loud sample of a sound track in seconds."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE)
        for decoded in container.decode(audio=track):
            for frame in resampler.resample(decoded):
                loud = np.flatnonzero(np.abs(frame.to_ndarray()[0].astype(int)) > 4000)
                if len(loud):
                    return float(frame.time or 0) + float(loud[0]) / SAMPLE_RATE
    raise AssertionError("no beep")
