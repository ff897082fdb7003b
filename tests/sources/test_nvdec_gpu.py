"""Decoding of a video on a GPU; collected without PyAV, which it needs to run."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from realtime_ssd.core.gpu import find_gpus


@pytest.mark.gpu
@pytest.mark.skipif(
    not find_gpus() or find_spec("av") is None, reason="there is no NVIDIA GPU or no PyAV"
)
def test_frames_decoded_on_a_gpu_stay_there_and_look_the_same(shared_data: Path) -> None:
    from realtime_ssd.sources import open_source
    from realtime_ssd.sources.nvdec import unavailable_reason

    if reason := unavailable_reason():
        pytest.skip(reason)
    path = shared_data / "clips" / "solidWhiteRight.mp4"
    count = 0
    with open_source(path) as on_cpu, open_source(path, decoder="gpu") as on_gpu:
        for expected in on_cpu:
            frame = on_gpu.read()
            assert frame is not None
            assert frame.surface is not None
            size = (frame.pts, frame.width, frame.height)
            assert size == (expected.pts, expected.width, expected.height)
            if count % 50 == 0:
                error = np.abs(expected.image.astype(int) - frame.image.astype(int))
                assert error.mean() < 1.5
            count += 1
        assert on_gpu.read() is None
    assert count == 221
