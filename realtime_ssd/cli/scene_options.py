"""Options of `realtime-ssd detect` for tracking, zones, privacy and measurements."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from realtime_ssd.cli.options import GROUPS

__all__ = ["TRACKERS", "SceneOptions", "with_default_tracker"]

TRACKERS = ("bytetrack", "ocsort", "botsort", "sort", "off")

_Repeatable = Parameter(negative="", consume_multiple=False)


@Parameter(name="*", group=GROUPS["scene"])
@dataclass(frozen=True)
class SceneOptions:
    """Tracking, zones and privacy.

    Attributes:
        track: Tracker that numbers objects: bytetrack (also if no name follows), ocsort, botsort,
            sort, or off. Lines, zones and other options that need tracks turn it on; it is off
            by default.
        traces: Seconds of the path of each object to draw.
        min_track_seconds: Objects known for less time are removed.
        smooth: Time constant in seconds for steadier boxes.
        min_size: Smallest object: its longer side in pixels, or as a fraction of the frame's.
        max_size: Largest object, in the same way.
        zone: Zone as NAME:x1,y1,x2,y2,x3,y3,... in pixels or fractions of the frame.
        line: Line to count crossings at, as NAME:x1,y1,x2,y2.
        zones: TOML file with tables [zones] and [lines], as `realtime-ssd zones` writes it.
        anchor: Point of a box that decides: bottom_center, center or top_center.
        dwell: Seconds in a zone after which an event is reported.
        min_zone_seconds: Seconds inside, outside or beyond a line before it counts.
        counts: CSV file of the events of each interval.
        counts_interval: Seconds of video per row of it.
        blur: Classes to blur in the frames themselves, as in "person,face", or all.
        pixelate: Classes to pixelate, in the same way.
        fill: Classes to cover in black, in the same way.
        blur_margin: Growth of the covered boxes, as a fraction of their size.
        blur_hold: Frames for which a box stays covered after its object was missed.
        blur_model: Second model that finds what to cover, such as faces.
        heatmap: Picture of where objects were, written at the end.
        calibrate: Four or more pixels of the ground and their meters, as in
            "x,y=X,Y x,y=X,Y ..."; adds positions and speeds.
    """

    track: Literal["bytetrack", "ocsort", "botsort", "sort", "off"] | None = None
    traces: float = 0.0
    min_track_seconds: float = 0.0
    smooth: float = 0.0
    min_size: float = 0.0
    max_size: float | None = None
    zone: Annotated[list[str] | None, _Repeatable] = None
    line: Annotated[list[str] | None, _Repeatable] = None
    zones: Path | None = None
    anchor: Literal["bottom_center", "center", "top_center"] = "bottom_center"
    dwell: float = 0.0
    min_zone_seconds: float = 0.0
    counts: Path | None = None
    counts_interval: float = 60.0
    blur: str = ""
    pixelate: str = ""
    fill: str = ""
    blur_margin: float = 0.15
    blur_hold: int = 15
    blur_model: str | None = None
    heatmap: Path | None = None
    calibrate: str = ""


def with_default_tracker(arguments: Sequence[str]) -> list[str]:
    """Return a command line in which a `--track` without a name has the default one."""
    completed = []
    for position, argument in enumerate(arguments):
        completed.append(argument)
        following = arguments[position + 1] if position + 1 < len(arguments) else ""
        # A bare word that is no file is a tracker, perhaps a misspelled one.
        is_name = following.isalpha() and following != "demo" and not os.path.exists(following)
        if argument == "--track" and following not in TRACKERS and not is_name:
            completed.append(TRACKERS[0])
    return completed
