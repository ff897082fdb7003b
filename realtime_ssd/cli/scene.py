"""`Scene`: the processors that the options for tracking, zones and privacy ask for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realtime_ssd.cli.scene_options import SceneOptions
from realtime_ssd.core.closeable import Closeable
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.frames import Frame
from realtime_ssd.core.results import Event
from realtime_ssd.processors import (
    Anonymizer,
    GroundPlane,
    HeatMap,
    Line,
    Processor,
    Shape,
    SizeFilter,
    Smoother,
    Tracker,
    Zone,
    parse_shape,
)
from realtime_ssd.processors.event_counts import EventCounts
from realtime_ssd.processors.ground import parse_calibration
from realtime_ssd.processors.privacy import Method
from realtime_ssd.processors.zone_shapes import parse_zone_file
from realtime_ssd.sources import SourceInfo

if TYPE_CHECKING:
    from realtime_ssd.detector import Detector

__all__ = ["Scene"]

_FIRST_COLOR = 100
"""Index of the color of the first zone: not that of a common class."""


class Scene(Closeable):
    """Creates the processors of each source; all options are checked before any work.

    Args:
        options: Choices of the user.
        infos: The sources.
        labels: Classes of the model.
        classes: Classes that are detected; empty for all.
        overwrite: Whether existing files may be replaced.

    Raises:
        UsageError: If an option is malformed, contradicts another or names an unknown class.
        RealtimeSSDError: If a package that an option needs is not installed.
    """

    def __init__(
        self,
        options: SceneOptions,
        infos: Sequence[SourceInfo],
        labels: Sequence[str],
        classes: Sequence[str] = (),
        *,
        overwrite: bool = False,
    ) -> None:
        self._options, self._infos, self._overwrite = options, list(infos), overwrite
        self._zones, self._lines = _read_shapes(options)
        self._points = parse_calibration(options.calibrate) if options.calibrate else []
        self._track = _tracker(options, needed=bool(self._lines))
        self._covered, self._labels = _covered(options, labels, classes), labels
        self._detector: Detector | None = None
        self._found: tuple[tuple[str, int], Detections] | None = None
        self.counts: EventCounts | None = None
        self._stack = ExitStack()
        for info in self._infos:
            for shape in (*self._zones, *self._lines) if info.width else ():
                shape.to_pixels(info.width, info.height)

    def files(self) -> list[Path]:
        """Return the files that will be written."""
        files = [] if self._options.counts is None else [self._options.counts]
        if self._options.heatmap is not None:
            files += [self._heat_map_path(info) for info in self._infos]
        return files

    def open(self) -> None:
        """Open the second model and the file of counts.

        Raises:
            UsageError: If the file exists or cannot be written, or there is no such model.
            ModelError: If the model cannot be read.
        """
        options = self._options
        if options.blur_model:
            from realtime_ssd.detector import Detector

            self._detector = self._stack.enter_context(Detector(options.blur_model))
            _check_known(self._covered, (*self._labels, *self._detector.spec.labels))
        self.counts = EventCounts(
            options.counts, options.counts_interval, overwrite=self._overwrite
        )
        self._stack.callback(self.counts.close)

    def create(self, info: SourceInfo) -> list[Processor]:
        """Return new processors for one source, in the order they run."""
        options = self._options
        processors: list[Processor] = []
        if options.min_size or options.max_size is not None:
            processors.append(SizeFilter(options.min_size, options.max_size))
        if self._track:
            processors.append(
                Tracker(
                    self._track,
                    frame_rate=float(info.rate or 30),
                    traces=options.traces,
                    min_seconds=options.min_track_seconds,
                )
            )
        if options.smooth:
            processors.append(Smoother(options.smooth))
        if self._points:
            processors.append(GroundPlane(self._points))
        processors += self._shapes()
        if options.heatmap is not None:
            processors.append(HeatMap(self._heat_map_path(info)))
        return processors

    def anonymizers(self) -> list[Processor]:
        """Return new processors that change the pixels; they run before all others."""
        options = self._options
        return [
            Anonymizer(
                classes,
                method,
                margin=options.blur_margin,
                hold=options.blur_hold,
                detect=self._find_covered if options.blur_model else None,
            )
            for method, classes in self._covered
        ]

    def _shapes(self) -> list[Processor]:
        options = self._options
        processors: list[Processor] = []
        for color, shape in enumerate((*self._zones, *self._lines), start=_FIRST_COLOR):
            is_zone = len(shape.points) > 2
            common = {
                "anchor": options.anchor,
                "min_seconds": options.min_zone_seconds,
                "color": color,
                "on_event": self._on_event,
            }
            if is_zone:
                processors.append(Zone(shape, dwell=options.dwell, **common))  # type: ignore[arg-type]
            else:
                processors.append(Line(shape, **common))  # type: ignore[arg-type]
        return processors

    def _on_event(self, source: str, event: Event) -> None:
        if self.counts is not None:
            self.counts.add(source, event)

    def _find_covered(self, frame: Frame) -> Detections:
        if self._detector is None:
            raise RuntimeError("`open` was not called")
        key = frame.source, frame.index
        if self._found is None or self._found[0] != key:  # once for several ways of covering
            self._found = key, self._detector(frame)
        return self._found[1]

    def _heat_map_path(self, info: SourceInfo) -> Path:
        path = self._options.heatmap or Path()
        if len(self._infos) == 1:
            return path
        return path.with_stem(f"{path.stem}-{self._infos.index(info) + 1}")

    def summary(self) -> list[str]:
        """Return the lines about zones and lines for the end of a run."""
        return [] if self.counts is None else self.counts.summary()

    def close(self) -> None:
        """Write the last counts and release the second model."""
        self._stack.close()


def _read_shapes(options: SceneOptions) -> tuple[list[Shape], list[Shape]]:
    zones = [parse_shape(text, "zone") for text in options.zone or ()]
    lines = [parse_shape(text, "line") for text in options.line or ()]
    if options.zones is not None:
        more_zones, more_lines = parse_zone_file(_read_toml(options.zones), str(options.zones))
        zones, lines = zones + more_zones, lines + more_lines
    names = [shape.name for shape in (*zones, *lines)]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two zones or lines are called '{name}'; use different names")
    if options.counts is not None and not names:
        raise UsageError("`counts` needs something to count: add `zone`, `line` or `zones`")
    if options.dwell and not zones:
        raise UsageError("`dwell` needs a zone: add `zone` or `zones`")
    return zones, lines


def _read_toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        from realtime_ssd.core.extras import require

        require("track", "tomli", purpose="reading a file of zones")
        import tomli as tomllib
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"'{path}' is not a TOML file: {error}") from None
    return content


def _tracker(options: SceneOptions, *, needed: bool) -> str:
    """Return the name of the tracker; empty for none."""
    reasons = {
        "line": needed,
        "traces": options.traces,
        "min_track_seconds": options.min_track_seconds,
        "smooth": options.smooth,
        "calibrate": options.calibrate,
        "dwell": options.dwell,
        "zone": options.zone or options.zones,
    }
    wanted = [name for name, value in reasons.items() if value]
    if options.track == "off":
        optional = () if options.counts is not None else ("zone",)
        required = [name for name in wanted if name not in (*optional, "calibrate")]
        if required:
            raise UsageError(f"`{required[0]}` needs tracks; remove `track` off")
        return ""
    return options.track or ("bytetrack" if wanted else "")


def _covered(
    options: SceneOptions, labels: Sequence[str], chosen: Sequence[str]
) -> list[tuple[Method, tuple[str, ...]]]:
    """Return how to cover which classes; no classes mean all."""
    choices: list[tuple[Method, str]] = [
        ("blur", options.blur),
        ("pixelate", options.pixelate),
        ("fill", options.fill),
    ]
    covered: list[tuple[Method, tuple[str, ...]]] = []
    for method, text in choices:
        names = tuple(name.strip() for name in text.split(",") if name.strip())
        if "all" in names and "all" not in labels:
            covered.append((method, ()))
        elif names:
            covered.append((method, names))
        left_out = [name for name in names if name in labels and chosen and name not in chosen]
        if left_out:
            raise UsageError(
                f"`{method}` covers {left_out[0]}, which `classes` leaves out; add it to `classes`"
            )
    if options.blur_model and not covered:
        raise UsageError("`blur_model` needs `blur`, `pixelate` or `fill`, as in --blur all")
    if not options.blur_model:
        _check_known(covered, labels)
    return covered


def _check_known(covered: list[tuple[Method, tuple[str, ...]]], labels: Sequence[str]) -> None:
    """Raise an error if no model knows a class that is to be covered."""
    for method, names in covered:
        for name in names:
            if name not in labels:
                raise UsageError(
                    f"`{method}` has the unknown class '{name}'; choose from "
                    f"{', '.join(label for label in labels if label != 'background')}"
                )
