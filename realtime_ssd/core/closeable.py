"""`Closeable`: base class of objects with a `close` method that work in `with` statements."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Closeable"]


class Closeable(AbstractContextManager[Any]):
    """Calls `close` at the end of a `with` statement."""

    def close(self) -> None:
        """Release all resources; may be called any number of times."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
