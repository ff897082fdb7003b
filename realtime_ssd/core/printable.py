"""Text from outside, such as file names and labels, made safe to print, log and draw."""

from __future__ import annotations

import unicodedata

__all__ = ["MAX_MESSAGE", "csv_text", "printable"]

MAX_MESSAGE = 2000
"""Characters of a message; quoted text from a hostile file may have any length."""
_FORMULA_STARTS = ("=", "+", "-", "@")
_JOINERS = "\u200c\u200d"
"""Invisible letters that Persian, Indic scripts and emoji need, and that change nothing else."""
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Control and formatting characters (bidirectional overrides among them), halves of surrogate
pairs, and separators of lines and paragraphs."""


def printable(text: str, longest: int = MAX_MESSAGE) -> str:
    r"""Return a text as one line that a terminal shows as it is.

    Terminal escapes, line breaks, characters that change the direction of writing, and bytes of a
    file name that are not UTF-8 are replaced by their escapes. Of a longer text the beginning and
    the end are kept.

    Args:
        text: Any text.
        longest: Characters to keep.

    Example:
        >>> printable("clip\x1b[31m\n.mp4")
        'clip\\x1b[31m\\n.mp4'
    """
    if len(text) > longest:
        text = f"{text[: longest // 2]} ... {text[len(text) - longest // 2 :]}"
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_escape, text))


def csv_text(text: str) -> str:
    """Return a text for a CSV cell that no spreadsheet runs as a formula.

    Files that other programs read back, such as datasets, contain names as they are.

    Args:
        text: Name of a source, zone or class.

    Example:
        >>> csv_text("=HYPERLINK(1)"), csv_text("car")
        ("'=HYPERLINK(1)", 'car')
    """
    text = printable(text)
    return f"'{text}" if text[:1] in _FORMULA_STARTS and text else text


def _escape(character: str) -> str:
    if unicodedata.category(character) not in _UNSAFE or character in _JOINERS:
        return character
    if "\udc80" <= character <= "\udcff":  # a byte of a file name, see `os.fsdecode`
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
