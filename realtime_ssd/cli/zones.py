"""`realtime-ssd zones`: draws zones and lines on a frame with the mouse."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from realtime_ssd.processors import Shape

__all__ = ["format_zones", "zones"]


def zones(source: str, *, output: Path = Path("zones.toml"), overwrite: bool = False) -> None:
    """Draw zones and lines on the first frame of a source, for `realtime-ssd --zones FILE`.

    Click the corners of a zone, or both ends of a line, and press Enter. u removes the last one, s
    saves, q leaves. Names can be changed in the file.

    Args:
        source: Camera number, file, photo, URL or demo.
        output: TOML file to write, in pixels of the frame.
        overwrite: Replace an existing file.
    """
    import sys

    from realtime_ssd.core.errors import UsageError
    from realtime_ssd.core.files import check_output, write_output
    from realtime_ssd.sinks.zone_editor import ZoneEditor
    from realtime_ssd.sources import open_source

    check_output(output, overwrite=overwrite)
    with open_source(source) as opened:
        frame = next(iter(opened), None)
        if frame is None:
            raise UsageError(f"'{source}' has no frame to draw on")
        image = frame.image
    editor = ZoneEditor(image)
    if not editor.run() or not editor.shapes:
        print("nothing was saved", file=sys.stderr)
        return
    write_output(output, format_zones(editor.shapes).encode())
    print(f"{output}: {', '.join(shape.name for shape in editor.shapes)}")


def format_zones(shapes: list[Shape]) -> str:
    """Return shapes as the text of a TOML file."""
    lines = []
    for kind in ("zones", "lines"):
        chosen = [shape for shape in shapes if (len(shape.points) == 2) == (kind == "lines")]
        if chosen:
            lines.append(f"[{kind}]")
        for shape in chosen:
            corners = ", ".join(f"[{x:g}, {y:g}]" for x, y in shape.points)
            lines.append(f'"{shape.name}" = [{corners}]')
    return "\n".join(lines) + "\n"
