"""Names of the keys that OpenCV's windows report."""

from __future__ import annotations

from typing import Literal

__all__ = ["KEYS", "Key", "key_of"]

KEYS = ("q/Esc quit", "space pause", "left/right step", "s snapshot", "h help")
"""What the keys do, for users."""

Key = Literal["", "quit", "pause", "snapshot", "help", "left", "right", "other"]
"""A key, or an empty string for none."""

_LETTERS: dict[int, Key] = {
    ord("q"): "quit",
    ord("Q"): "quit",
    27: "quit",
    ord(" "): "pause",
    ord("s"): "snapshot",
    ord("S"): "snapshot",
    ord("h"): "help",
    ord("H"): "help",
}
# X11 (Qt and GTK), Windows and macOS.
_ARROWS: dict[int, Key] = {
    **{0xFF51: "left", 0x250000: "left", 63234: "left"},
    **{0xFF53: "right", 0x270000: "right", 63235: "right"},
}
_MODIFIERS = range(0xFFE1, 0xFFEF)


def key_of(code: int) -> Key:
    """Return the key of a code that `cv2.waitKeyEx` returned; no key for a modifier alone."""
    if code < 0:
        return ""
    for masked in (code, code & 0xFFFF):  # GTK adds bits for modifiers
        if masked in _ARROWS:
            return _ARROWS[masked]
    if code & 0xFFFF in _MODIFIERS:
        return ""
    return _LETTERS.get(code & 0xFFFF, "other")
