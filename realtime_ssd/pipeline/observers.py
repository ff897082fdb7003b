"""Calling several observers as one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from realtime_ssd.core.errors import describe
from realtime_ssd.core.metrics import Observer, Outcome, SourceState

__all__ = ["ObserverGroup"]

_log = logging.getLogger(__name__)


class ObserverGroup:
    """Passes every call on to each observer; one that raises is logged and dropped.

    Args:
        observers: In the order they are called.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def on_frame(self, source: str, outcome: Outcome) -> None:
        """See `Observer.on_frame`."""
        self._notify(lambda observer: observer.on_frame(source, outcome))

    def on_stage(self, source: str, stage: str, seconds: float) -> None:
        """See `Observer.on_stage`."""
        self._notify(lambda observer: observer.on_stage(source, stage, seconds))

    def on_state(self, source: str, state: SourceState) -> None:
        """See `Observer.on_state`."""
        self._notify(lambda observer: observer.on_state(source, state))

    def _notify(self, call: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            try:
                call(observer)
            except Exception as error:
                self._observers = tuple(one for one in self._observers if one is not observer)
                _log.warning(
                    "observer %s failed and is not called again: %s",
                    *(type(observer).__name__, describe(error)),
                )
