"""Summary at the end of a run: frames, seconds, objects by class, and where results are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from realtime_ssd.core.errors import redact
from realtime_ssd.core.metrics import Statistics
from realtime_ssd.core.printable import printable
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sources import SourceInfo

__all__ = ["RunSummary", "unit_of"]

_OUTCOMES = {"replaced": "skipped for newer frames", "stopped": "unfinished at exit"}
_MAX_CLASSES = 12  # in the line of counts


def unit_of(infos: Sequence[SourceInfo]) -> str:
    """Return what a run counts: "photos" if all sources are still images, else "frames"."""
    return "photos" if all(info.still for info in infos) else "frames"


class RunSummary:
    """Counts objects by class and describes a finished run.

    Args:
        infos: The sources.
    """

    def __init__(self, infos: Sequence[SourceInfo]) -> None:
        self._unit = unit_of(infos)
        self._live = any(info.live for info in infos)
        self._detections: Counter[str] = Counter()
        self._tracks: dict[tuple[str, int], str] = {}
        self._tracked = False

    def observe(self, result: FrameResult) -> None:
        """Count the detections of a frame; objects with track ids count once in a run."""
        detections = result.detections
        names = [detections.label_of(number) for number in detections.class_ids.tolist()]
        if detections.track_ids is None:
            self._detections.update(names)
            return
        self._tracked = True
        source = result.frame.source
        tracks = detections.track_ids.tolist()
        for name, track in zip(names, tracks, strict=True):
            if track >= 0:
                self._tracks[source, track] = name

    def lines(self, statistics: Statistics, outputs: Sequence[str] = ()) -> list[str]:
        """Return the lines of the summary.

        Args:
            statistics: Counts of the run.
            outputs: Files, folders and URLs with results.
        """
        lines = [self._frames(statistics), self._objects()]
        if outputs:
            lines.append(f"results: {', '.join(printable(redact(output)) for output in outputs)}")
        return lines

    def _frames(self, statistics: Statistics) -> str:
        """Return counts and rates; latency only of live sources, as files wait in queues."""
        total = statistics.total
        unit = self._unit[:-1] if total.processed == 1 else self._unit
        text = f"{total.processed} {unit} in {statistics.seconds:.1f} s"
        text += f" ({statistics.fps:.1f} per second)" if self._unit == "photos" else ""
        text += f", {statistics.fps:.1f} FPS" if self._unit == "frames" else ""
        if self._live:
            p50, p99 = (statistics.latency(fraction=part) * 1000 for part in (0.5, 0.99))
            text += f", latency p50 {p50:.1f} ms, p99 {p99:.1f} ms"
        dropped = [f"{total.dropped[key]} {words}" for key, words in _OUTCOMES.items()
                   if total.dropped[key]]  # fmt: skip
        if self._live and not dropped:
            dropped = ["none skipped"]
        return ", ".join([text, *dropped])

    def _objects(self) -> str:
        counts = self._detections
        if self._tracked:
            counts = Counter(self._tracks.values())
        if not counts:
            return "nothing was detected"
        shown = [f"{count} {label}" for label, count in counts.most_common(_MAX_CLASSES)]
        if len(counts) > _MAX_CLASSES:
            shown.append(f"{len(counts) - _MAX_CLASSES} more classes")
        return f"{'tracked objects' if self._tracked else 'detections'}: {', '.join(shown)}"
