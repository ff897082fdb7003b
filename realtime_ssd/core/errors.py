"""Errors with a one-sentence message and the exit status of the program.

Messages name parameters in backticks, as in "`score_threshold` must be between 0 and 1"; the
command line replaces them by options (`for_command_line`).
"""

from __future__ import annotations

import errno
import re

from realtime_ssd.core.printable import printable

__all__ = [
    "ModelError",
    "RealtimeSSDError",
    "SourceError",
    "UsageError",
    "describe",
    "first_line",
    "for_command_line",
    "reached_limit",
    "redact",
]

# Up to the last @ before the path; a password may contain quotes, and some URLs have one slash.
_CREDENTIALS = re.compile(r"(?P<scheme>\b[a-zA-Z][a-zA-Z0-9+.-]*:/{1,2})[^/\s]*@")
# A URL with a slash in the password is invalid, but still a secret; a port has digits only.
_CREDENTIALS_WITH_SLASH = re.compile(
    r"(?P<scheme>\b[a-zA-Z][a-zA-Z0-9+.-]*:/{1,2})[^/\s:@]+:(?!\d+(?:[/?\s'\"]|$))[^\s?]*@"
)
# Names of parameters of queries and fragments whose values are secrets, or identify a person.
_PRIVATE_NAMES = (
    "pass|passphrase|passwd|password|pwd|pas|pw|pin|otp|token|jwt|key|apikey|secret|auth|"
    "authorization|bearer|credential|credentials|signature|sig|hmac|policy|session|sessionid|"
    "session_id|sid|streamid|ticket|nonce|hdnts|hdnea|hdntl|key-pair-id|user|username|login"
)
_SECRET_QUERY = re.compile(rf"(?i)(?P<key>[?&;#][\w.%-]*(?:{_PRIVATE_NAMES})=)[^&\s'\"]*")
# A name that is itself written with escapes, such as pass%77ord.
_ESCAPED_NAME = re.compile(r"(?P<key>[?&;#][\w.-]*%[0-9a-fA-F]{2}[\w.%-]*=)[^&\s'\"]*")


class RealtimeSSDError(Exception):
    """A failure with a one-sentence message; the program exits with `exit_status`.

    Args:
        message: Shown to the user; credentials in URLs are removed, and text from outside is made
            harmless (`printable`).
    """

    exit_status = 1

    def __init__(self, message: str) -> None:
        super().__init__(printable(redact(message)))


class UsageError(RealtimeSSDError, ValueError):
    """An invalid argument: an unknown name, a value out of range, a missing file."""

    exit_status = 2


class ModelError(RealtimeSSDError):
    """A model file that cannot be read, or whose outputs contradict its specification."""


class SourceError(RealtimeSSDError):
    """A source that cannot be opened, or that failed while it was read."""


def first_line(error: BaseException, default: str = "") -> str:
    """Return the first line of an exception's message.

    Args:
        error: Any exception.
        default: Returned for an empty message; the name of the exception's type if empty itself.
    """
    return (str(error).strip().splitlines() or [default or type(error).__name__])[0]


def describe(error: BaseException) -> str:
    """Return type and message of another library's exception, for use within a sentence.

    Example:
        >>> describe(ZeroDivisionError("division by zero"))
        'ZeroDivisionError: division by zero'
    """
    message = first_line(error, "no details")
    return reached_limit(error) or f"{type(error).__name__}: {message}"


def reached_limit(error: BaseException) -> str:
    """Return which limit of the system was reached, and what to do; empty for other errors.

    Libraries report a lack of memory, threads or files as exceptions of many types.

    Example:
        >>> reached_limit(RuntimeError("can't start new thread"))[:46]
        'no further thread or process can be started (c'
    """
    message = first_line(error, "no details")
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or number == errno.ENOMEM or _NO_MEMORY.search(message):
        return f"there is not enough memory ({message}); try a smaller `batch` or smaller images"
    if number == errno.EAGAIN or _NO_THREAD.search(message):
        return (
            f"no further thread or process can be started ({message}); end other programs, or "
            "raise the limit (ulimit -u)"
        )
    if number in (errno.EMFILE, errno.ENFILE) or _NO_FILE.search(message):
        return (
            f"too many files are open ({message}); use fewer sources at once, or raise the limit "
            "(ulimit -n)"
        )
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({message}); free some space or use another folder"
    return ""


_NO_MEMORY = re.compile(
    r"bad[_ ]alloc|(?i:insufficient memory|cannot allocate memory|failed to allocate memory|"
    r"not enough memory|out of memory)"
)
_NO_THREAD = re.compile(r"(?i:can't start new thread|resource temporarily unavailable)")
_NO_FILE = re.compile(r"(?i:too many open files)")


def redact(text: str) -> str:
    """Remove user names, passwords and tokens from every URL in a text.

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
    text = _CREDENTIALS_WITH_SLASH.sub(r"\g<scheme>", text)
    text = _ESCAPED_NAME.sub(r"\g<key>***", text)
    return _SECRET_QUERY.sub(r"\g<key>***", text)


_PARAMETER = re.compile(r"`([a-z][a-z0-9_]*)`")


def for_command_line(message: str) -> str:
    """Return an error message with parameters written as options.

    Example:
        >>> for_command_line("`score_threshold` must be between 0 and 1, not 2")
        '--score-threshold must be between 0 and 1, not 2'
    """
    return _PARAMETER.sub(lambda match: "--" + match[1].replace("_", "-"), message)
