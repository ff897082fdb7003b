"""Error messages: no secrets, one sentence, and options on the command line."""

from __future__ import annotations

import pytest

from realtime_ssd.core.errors import (
    ModelError,
    RealtimeSSDError,
    SourceError,
    UsageError,
    describe,
    first_line,
    for_command_line,
    redact,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rtsp://user:secret@host/a", "rtsp://host/a"),
        ("rtsp://user@host:554/a", "rtsp://host:554/a"),
        ("rtsp://user:p@ss@host/a", "rtsp://host/a"),
        ("rtsp://user:se'cret@host/a", "rtsp://host/a"),
        ("rtsp:/user:secret@host/a", "rtsp:/host/a"),
        ("rtsp://user:sec/ret@host/a", "rtsp://host/a"),
        ("rtsp://host:554/a@b", "rtsp://host:554/a@b"),
        ("http://host/a?token=abc&x=1", "http://host/a?token=***&x=1"),
        ("http://host/a?x=1&API_KEY=abc", "http://host/a?x=1&API_KEY=***"),
        ("http://host/a?X-Amz-Credential=abc", "http://host/a?X-Amz-Credential=***"),
        ("http://host/a?jwt=abc#access_token=d", "http://host/a?jwt=***"),
        ("http://host/a?x=1#access_token=d", "http://host/a?x=1#access_token=***"),
        ("http://host/a?hdnts=st=1~hmac=abc", "http://host/a?hdnts=***"),
        ("http://host/a?pass%77ord=abc&x=1", "http://host/a?pass%77ord=***&x=1"),
        ("http://host/a?user=me&session_id=1", "http://host/a?user=***&session_id=***"),
        ("http://host/a?Key-Pair-Id=K&page=2", "http://host/a?Key-Pair-Id=***&page=2"),
        ("url: /a?sig=abc (Caused by x)", "url: /a?sig=*** (Caused by x)"),
        ("'http://host/?password=abc' is lost", "'http://host/?password=***' is lost"),
        ("'http://u:p@a/' and 'http://u:p@b/'", "'http://a/' and 'http://b/'"),
        ("mail me@host", "mail me@host"),
    ],
)
def test_credentials_are_removed(text: str, expected: str) -> None:
    assert redact(text) == expected
    assert str(RealtimeSSDError(text)) == expected


def test_exit_statuses_and_kinds() -> None:
    assert [kind.exit_status for kind in (RealtimeSSDError, ModelError, SourceError)] == [1, 1, 1]
    assert UsageError.exit_status == 2
    assert issubclass(UsageError, ValueError)
    assert not issubclass(SourceError, ValueError)


def test_first_line() -> None:
    assert first_line(OSError("\n one \ntwo")) == "one "
    assert first_line(OSError()) == "OSError"
    assert first_line(OSError(" "), "unknown") == "unknown"


def test_describe() -> None:
    assert describe(ZeroDivisionError("division by zero\nmore")) == (
        "ZeroDivisionError: division by zero"
    )
    assert describe(KeyError()) == "KeyError: no details"
    assert describe(MemoryError("4 GiB")) == (
        "there is not enough memory (4 GiB); try a smaller `batch` or smaller images"
    )


def test_parameters_become_options() -> None:
    assert for_command_line("`a_b_2` and `c` but not `D` or `e f`") == (
        "--a-b-2 and --c but not `D` or `e f`"
    )
