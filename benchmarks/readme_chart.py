"""A bar chart of ratios as SVG, the same bytes for the same figures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

__all__ = ["draw"]

LEFT, WIDTH, ROW, TOP = 520, 960, 24, 44
GOOD, MISSED, PLAIN = "#2a9d8f", "#d1495b", "#3b7dd8"


def draw(bars: Sequence[tuple[str, float, bool | None]]) -> str:
    """Draw a bar a comparison, with a line where both are equally fast.

    Args:
        bars: What is compared, how many times as fast, and whether the goal was met.
    """
    most = max((ratio for _, ratio, _ in bars), default=1.0)
    scale = (WIDTH - LEFT - 60) / max(most, 1.0)
    height = TOP + ROW * len(bars) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="18" font-size="14">realtime-ssd is so many times as fast as</text>',
        f'<text x="{LEFT}" y="35" fill="{GOOD}">goal met</text>',
        f'<text x="{LEFT + 70}" y="35" fill="{MISSED}">goal missed</text>',
        f'<text x="{LEFT + 155}" y="35" fill="{PLAIN}">no goal</text>',
    ]
    for number, (what, ratio, met) in enumerate(bars):
        y = TOP + ROW * number
        colour = PLAIN if met is None else GOOD if met else MISSED
        end = LEFT + ratio * scale
        parts += [
            f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(what)}</text>',
            f'<rect x="{LEFT}" y="{y + 3}" width="{ratio * scale:.1f}" height="16" '
            f'fill="{colour}"/>',
            f'<text x="{end + 5:.1f}" y="{y + 15}">{ratio:.2f}</text>',
        ]
    one = LEFT + scale
    parts.append(
        f'<line x1="{one:.1f}" x2="{one:.1f}" y1="{TOP}" y2="{height - 8}" stroke="#222" '
        'stroke-dasharray="3 3"/>'
    )
    return "\n".join([*parts, "</svg>"]) + "\n"
