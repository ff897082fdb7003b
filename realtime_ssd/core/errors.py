"""The errors a user may see: one sentence each, with the exit status of the program.

A message names parameters in backticks, as in "`score_threshold` must be between 0 and 1". From
Python it is shown as it is; the command line shows the option instead (`for_command_line`).
"""

from __future__ import annotations

import re

__all__ = [
    "ModelError",
    "RealtimeSSDError",
    "SourceError",
    "UsageError",
    "described",
    "first_line",
    "for_command_line",
    "redact",
]

# Up to the last @ before the path; a password may hold quotes, and one slash is as good as two.
_CREDENTIALS = re.compile(r"(?P<scheme>\b[a-zA-Z][a-zA-Z0-9+.-]*:/{1,2})[^/\s]*@")
# A password with a slash in it is no valid URL, but no less a secret; a port is digits alone.
_BROKEN = re.compile(
    r"(?P<scheme>\b[a-zA-Z][a-zA-Z0-9+.-]*:/{1,2})[^/\s:@]+:(?!\d+(?:[/?\s'\"]|$))[^\s?]*@"
)
_SECRET_QUERY = re.compile(
    r"(?i)(?P<key>[?&;][\w.-]*(?:pass|passwd|password|pwd|pas|pw|token|key|secret|auth|signature|sig)=)"
    r"[^&\s'\"]*"
)


class RealtimeSSDError(Exception):
    """A failure that one sentence explains; the program ends with `exit_status`."""

    exit_status = 1

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


class UsageError(RealtimeSSDError, ValueError):
    """A wrong argument: an unknown name, a bad value, a missing file."""

    exit_status = 2


class ModelError(RealtimeSSDError):
    """A model file that cannot be read, or whose outputs disagree with its specification."""


class SourceError(RealtimeSSDError):
    """A source that cannot be opened, or that broke while it was read."""


def first_line(error: BaseException, otherwise: str = "") -> str:
    """Give the first line of what an exception says; other words or its kind if it says nothing."""
    return (str(error).strip().splitlines() or [otherwise or type(error).__name__])[0]


def described(error: BaseException) -> str:
    """Say in part of a sentence what an exception of another library was.

    Example:
        >>> described(ZeroDivisionError("division by zero"))
        'ZeroDivisionError: division by zero'
    """
    said = first_line(error, "no details")
    if isinstance(error, MemoryError):
        return f"there is not enough memory ({said}); try a smaller --batch or picture"
    return f"{type(error).__name__}: {said}"


def redact(text: str) -> str:
    """Take user names, passwords and tokens out of every URL in a text.

    Args:
        text: Any text, for example an error message of a library.

    Returns:
        The text with `scheme://user:password@host` as `scheme://host` and secret query values
        as `***`.

    Example:
        >>> redact("cannot open rtsp://admin:s3cret@10.0.0.5/stream?token=abc")
        'cannot open rtsp://10.0.0.5/stream?token=***'
    """
    text = _CREDENTIALS.sub(r"\g<scheme>", text)
    text = _BROKEN.sub(r"\g<scheme>", text)
    return _SECRET_QUERY.sub(r"\g<key>***", text)


_PARAMETER = re.compile(r"`([a-z][a-z0-9_]*)`")


def for_command_line(message: str) -> str:
    """Return an error message with parameters written as options.

    Example:
        >>> for_command_line("`score_threshold` must be between 0 and 1, not 2")
        '--score-threshold must be between 0 and 1, not 2'
    """
    return _PARAMETER.sub(lambda match: "--" + match[1].replace("_", "-"), message)
