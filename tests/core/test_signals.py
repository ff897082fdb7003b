"""Graceful shutdown, and objects that are closed by `with`."""

from __future__ import annotations

import signal

import pytest

from realtime_ssd.core.closeable import Closeable
from realtime_ssd.core.signals import stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_is_recorded_and_the_second_interrupts(number: int) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    seen: list[int] = []
    with stop_on_signals(seen.append) as received:
        assert received() == 0
        signal.raise_signal(number)
        assert received() == number
        assert seen == [number]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert seen == [number]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_callback_is_optional() -> None:
    with stop_on_signals() as received:
        signal.raise_signal(signal.SIGTERM)
        assert received() == signal.SIGTERM


class Resource(Closeable):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def close(self) -> None:
        self.calls.append("close")


def test_with_statement_closes_also_after_an_error() -> None:
    resource = Resource()
    with resource as entered:
        assert entered is resource
        assert resource.calls == []
    with pytest.raises(OSError, match="lost"), resource:
        raise OSError("lost")
    assert resource.calls == ["close", "close"]
