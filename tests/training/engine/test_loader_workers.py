"""A worker that is killed: the error says by which limit."""

from __future__ import annotations

import os
import signal

import pytest
from realtime_ssd_training.engine.loader import Loader, LoaderOptions

from realtime_ssd.core.errors import RealtimeSSDError
from realtime_ssd.core.spec import InputSpec
from tests.training.tiny_ssd import Squares

MAIN = os.getpid()


class Deadly(Squares):
    """Kills the worker that reads an image."""

    def __init__(self, number: int) -> None:
        super().__init__(8)

        def kill(index: int) -> None:
            if index == 5 and os.getpid() != MAIN:
                os.kill(os.getpid(), number)

        self.before_read = kill


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (signal.SIGKILL, "a worker was killed, as the system does when the memory of the machine"),
        (signal.SIGBUS, "a worker was stopped because the shared memory is full; enlarge it"),
        (signal.SIGXCPU, "a worker was stopped because the limit of processor time was reached"),
        (signal.SIGTERM, "a worker was stopped by the signal SIGTERM"),
    ],
)
def test_the_limit_is_named(number: signal.Signals, text: str) -> None:
    options = LoaderOptions(batch_size=2, workers=1, shuffle=False)
    loader = Loader(Deadly(number), InputSpec(32, 32), options)
    with pytest.raises(RealtimeSSDError, match=f"^loading images failed: {text}"):
        list(loader.epoch(0))
    loader.close()


def test_other_errors_are_not_explained() -> None:
    images = Squares(4)

    def fail(_: int) -> None:
        raise RuntimeError("shape mismatch")

    images.before_read = fail
    loader = Loader(images, InputSpec(32, 32), LoaderOptions(batch_size=2, workers=0))
    with pytest.raises(RuntimeError, match=r"^shape mismatch$"):
        list(loader.epoch(0))
