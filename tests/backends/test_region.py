"""Detection in a rectangle of the frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from realtime_ssd.backends import open_backend
from realtime_ssd.backends.region import RegionBackend, check_region
from realtime_ssd.core.errors import SourceError, UsageError
from realtime_ssd.core.frames import Frame, Surface
from realtime_ssd.sources import SourceInfo
from tests.tiny import bright_cell


def test_boxes_are_in_pixels_of_the_whole_frame(tiny: Path) -> None:
    image = np.zeros((240, 400, 3), np.uint8)
    image[60:180, 100:260] = bright_cell((1, 2))
    image[:60, :100] = 255  # bright, but outside
    with RegionBackend(open_backend(tiny, "onnxruntime"), (100, 60, 160, 120)) as backend:
        batch = backend.submit([Frame(image), Frame(image)])
        answers = backend.collect(batch)
    assert len(batch.frames) == 2
    assert batch.timings
    for detections in answers:
        (detection,) = detections
        assert detection.box == pytest.approx((180, 90, 220, 120), abs=0.01)


def test_small_frame_is_an_error_of_its_source(tiny: Path) -> None:
    message = "`roi` 0,0,64,64 is not within the 32x32 pixels of 'a"
    with (
        RegionBackend(open_backend(tiny, "onnxruntime"), (0, 0, 64, 64)) as backend,
        pytest.raises(SourceError, match=message),
    ):
        backend.submit([Frame(np.zeros((32, 32, 3), np.uint8), source="a.png")])


def test_rectangle_is_compared_with_known_sizes() -> None:
    infos = [SourceInfo("unknown"), SourceInfo("a.mp4", 160, 96)]
    check_region((0, 0, 160, 96), infos)
    with pytest.raises(UsageError, match=r"is not within the 160x96 pixels of 'a\.mp4'"):
        check_region((1, 0, 160, 96), infos)


@pytest.mark.parametrize(
    ("region", "planes"),
    [((10, 20, 40, 30), (1000 + 20 * 64 + 10, 9000 + 10 * 64 + 10)), ((11, 20, 40, 30), None)],
)
def test_part_of_an_image_on_the_gpu_is_not_copied(
    region: tuple[int, int, int, int], planes: tuple[int, int] | None
) -> None:
    class Recorder:
        """A backend that keeps what it receives."""

        name, spec, max_batch, max_submit, max_in_flight = "recorder", None, 1, 1, 1
        converts_frames = True

        def submit(self, frames: list[Frame]) -> None:
            self.frames = frames

    recorder = Recorder()
    surface = Surface(64, 60, (1000, 9000), (64, 64), "bt709", False, None)
    backend = RegionBackend(recorder, region)  # type: ignore[arg-type]
    backend.submit([Frame(np.zeros((60, 64, 3), np.uint8), surface=surface)])
    cropped = recorder.frames[0].surface
    if planes is None:
        assert cropped is None
    else:
        assert cropped is not None
        assert (cropped.width, cropped.height, cropped.planes) == (40, 30, planes)
