"""Colors of classes."""

from __future__ import annotations

from functools import lru_cache

__all__ = ["Color", "color_of", "contrasting"]

Color = tuple[int, int, int]
"""Blue, green and red from 0 to 255."""

# Each color is the one, of all that are neither dark, pale nor gray, with the largest distance in
# OKLab to those before it, where the ten before it count twice.
_COLORS = bytes.fromhex(
    """
    ff961e 1e4bff ff00f0 00ff00 2dd2ff 008700 c30f3c ffb4ff 9678c3 e1f096 9600f0 c3871e
    5ac378 ff00b4 ff7887 00ffff 00b4ff a54b4b 00875a 2d69b4 c3ff00 a55aff ffc369 3cc300
    d200a5 ff87e1 ff691e 2dc3c3 965a00 87ffd2 0087f0 a5a5ff 692dff ffe100 a5a500 a53c96
    ff69ff ff0f3c ffa587 00a596 00f096 b4693c 7887f0 5a780f c300ff d2c300 c35aa5 d2a5f0
    e1000f 5a4be1 00b45a 69e1d2 e18769 2d96c3 78ff69 967800 e14bff a50fb4 ff4b96 c33c00
    7869ff c387d2 a5c369 c30069 00a500 1ee100 b4ff87 78b4ff c32dd2 875aa5 f05a5a 0069e1
    ffa5c3 d2a52d d287ff 5a963c 78d22d e10f87 1ef0c3 874bff a55a87 e14b00 5a78c3 e187a5
    d2d278 c369e1 78a55a e100f0 ff0078 b40096 873cd2 00d2a5 e1780f 5a96e1 c36987 b4e11e
    """
)


@lru_cache(maxsize=1024)
def color_of(class_id: int) -> Color:
    """Return the BGR color of a class, always the same one for the same class id.

    96 classes have different colors; those of ids close to each other differ most.

    Args:
        class_id: Column of the class in the scores of the model.
    """
    start = class_id * 3 % len(_COLORS)
    red, green, blue = _COLORS[start : start + 3]
    return blue, green, red


def contrasting(color: Color) -> Color:
    """Return black or white, whichever is more readable on a color."""
    blue, green, red = color
    bright = 0.114 * blue + 0.587 * green + 0.299 * red > 130
    return (0, 0, 0) if bright else (255, 255, 255)
