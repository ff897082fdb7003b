"""Bar chart of speed-ups as SVG; equal figures produce equal bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

__all__ = ["Bar", "draw_chart"]

Bar = tuple[str, float, bool | None]
"""What is compared, the speed-up, and whether its target is met (None without one)."""

LEFT, WIDTH, ROW, TOP = 560, 1000, 24, 44
MET_COLOR, MISSED_COLOR, NEUTRAL_COLOR = "#2a9d8f", "#d1495b", "#3b7dd8"


def draw_chart(machines: Mapping[str, Sequence[Bar]]) -> str:
    """Draw one bar per comparison, with a line at equal speed.

    Args:
        machines: Bars of each machine.

    Returns:
        The SVG document.
    """
    ratios = [ratio for bars in machines.values() for _, ratio, _ in bars]
    scale = (WIDTH - LEFT - 60) / max([1.0, *ratios])
    height = TOP + ROW * (len(machines) + len(ratios)) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="18" font-size="14">speed-up of realtime-ssd over the baseline</text>',
        f'<text x="{LEFT}" y="35" fill="{MET_COLOR}">target met</text>',
        f'<text x="{LEFT + 80}" y="35" fill="{MISSED_COLOR}">target missed</text>',
        f'<text x="{LEFT + 175}" y="35" fill="{NEUTRAL_COLOR}">no target</text>',
    ]
    y = TOP
    for name, bars in machines.items():
        parts.append(f'<text x="8" y="{y + 15}" font-weight="bold">{escape(name)}</text>')
        for number, bar in enumerate(bars, 1):
            parts += _draw_bar(bar, y + ROW * number, scale)
        y += ROW * (1 + len(bars))
    equal = LEFT + scale
    parts.append(
        f'<line x1="{equal:.1f}" x2="{equal:.1f}" y1="{TOP}" y2="{height - 8}" stroke="#222" '
        'stroke-dasharray="3 3"/>'
    )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _draw_bar(bar: Bar, y: int, scale: float) -> list[str]:
    """Draw title, bar and figure; the figure is placed to the right of bar and line."""
    title, ratio, met = bar
    color = NEUTRAL_COLOR if met is None else MET_COLOR if met else MISSED_COLOR
    return [
        f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(title)}</text>',
        f'<rect x="{LEFT}" y="{y + 3}" width="{ratio * scale:.1f}" height="16" fill="{color}"/>',
        f'<text x="{LEFT + max(ratio, 1.0) * scale + 5:.1f}" y="{y + 15}">{ratio:.2f}</text>',
    ]
