"""Text from outside is shown as one harmless line."""

from __future__ import annotations

import pytest

from realtime_ssd.core.errors import RealtimeSSDError
from realtime_ssd.core.printable import csv_text, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("street.mp4", "street.mp4"),
        ("Straße 東京 каша.mp4", "Straße 東京 каша.mp4"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\x9b31mb", "a\\x9b31mb"),  # CSI in one character
        ("a\r\nb\tc\0", "a\\r\\nb\\tc\\x00"),
        ("abc\u202egpj.exe", "abc\\u202egpj.exe"),
        ("a\u2066b\u2069\u200f", "a\\u2066b\\u2069\\u200f"),
        ("a\u2028b\u2029c\x85", "a\\u2028b\\u2029c\\x85"),
        ("\ufeffa\u200b\xad", "\\ufeffa\\u200b\\xad"),
        ("\udcff.jpg", "\\xff.jpg"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),  # an invisible tag
        ("می\u200cخواهم 👩\u200d🚒", "می\u200cخواهم 👩\u200d🚒"),
        ("\x7f", "\\x7f"),
    ],
)
def test_text_is_shown_as_one_line(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert len(shown.splitlines()) == 1
    shown.encode()
    assert str(RealtimeSSDError(f"'{text}' is damaged")) == f"'{shown}' is damaged"


def test_the_middle_of_a_long_text_is_left_out() -> None:
    shown = printable("a" * 10**6 + "b" * 10**6)
    assert shown == "a" * 1000 + " ... " + "b" * 1000


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("car", "car"),
        ("", ""),
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\t=1", "\\t=1"),
        ("a\r\n=1", "a\\r\\n=1"),
    ],
)
def test_no_cell_is_a_formula(text: str, cell: str) -> None:
    assert csv_text(text) == cell
