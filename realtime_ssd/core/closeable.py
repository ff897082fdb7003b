"""`Closeable`: objects that are closed at the end of a `with` block."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Closeable"]


class Closeable(AbstractContextManager[Any]):
    """Calls `close` at the end of a `with` block."""

    def close(self) -> None:
        """Release everything; may be called any number of times."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
