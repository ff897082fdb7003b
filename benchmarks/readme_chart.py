"""A bar chart of ratios as SVG, the same bytes for the same figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

__all__ = ["Bar", "draw"]

Bar = tuple[str, float, bool | None]

LEFT, WIDTH, ROW, TOP = 560, 1000, 24, 44
GOOD, MISSED, PLAIN = "#2a9d8f", "#d1495b", "#3b7dd8"


def draw(machines: Mapping[str, Sequence[Bar]]) -> str:
    """Draw a bar a comparison, with a line where both are equally fast.

    Args:
        machines: For each machine what is compared, how many times as fast it is, and whether the
            goal was met.
    """
    ratios = [ratio for bars in machines.values() for _, ratio, _ in bars]
    scale = (WIDTH - LEFT - 60) / max([1.0, *ratios])
    height = TOP + ROW * (len(machines) + len(ratios)) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="18" font-size="14">realtime-ssd is so many times as fast as</text>',
        f'<text x="{LEFT}" y="35" fill="{GOOD}">goal met</text>',
        f'<text x="{LEFT + 70}" y="35" fill="{MISSED}">goal missed</text>',
        f'<text x="{LEFT + 155}" y="35" fill="{PLAIN}">no goal</text>',
    ]
    y = TOP
    for name, bars in machines.items():
        parts.append(f'<text x="8" y="{y + 15}" font-weight="bold">{escape(name)}</text>')
        for number, bar in enumerate(bars, 1):
            parts += _bar(bar, y + ROW * number, scale)
        y += ROW * (1 + len(bars))
    one = LEFT + scale
    parts.append(
        f'<line x1="{one:.1f}" x2="{one:.1f}" y1="{TOP}" y2="{height - 8}" stroke="#222" '
        'stroke-dasharray="3 3"/>'
    )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bar(bar: Bar, y: int, scale: float) -> list[str]:
    """Draw one; its figure stands beside it, and beside the line."""
    what, ratio, met = bar
    colour = PLAIN if met is None else GOOD if met else MISSED
    return [
        f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(what)}</text>',
        f'<rect x="{LEFT}" y="{y + 3}" width="{ratio * scale:.1f}" height="16" fill="{colour}"/>',
        f'<text x="{LEFT + max(ratio, 1.0) * scale + 5:.1f}" y="{y + 15}">{ratio:.2f}</text>',
    ]
