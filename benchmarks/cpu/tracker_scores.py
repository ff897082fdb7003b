"""Accuracy and cost of the trackers, scored by the evaluation of the package `trackers`.

`python -m benchmarks.cpu.tracker_scores [--mot FOLDER] [--seeds N] [--frames N]` tracks

- the synthetic street, whose ground truth has identities, with true boxes and with detections of
  the bundled model;
- sequences in MOT format: folders with gt/gt.txt and det/det.txt (no images: BoT-SORT then runs
  without camera motion compensation).

HOTA, IDF1 and MOTA are in percent. `ms` is the median time of `Tracker.process` for one frame.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import median

import numpy as np

from realtime_ssd import Detector
from realtime_ssd.core.detections import Detections
from realtime_ssd.core.frames import Frame
from realtime_ssd.core.results import FrameResult
from realtime_ssd.processors import Tracker
from realtime_ssd.processors.tracking import METHODS
from realtime_ssd.synthetic import LABELS, StreetScene

FPS = 25
_CLASSES = ("background", "object")
_MIN_SCORE = 0.3


@dataclass(frozen=True)
class TrackingSequence:
    """One sequence.

    Attributes:
        name: Name in the table.
        truth: Rows of ground truth in MOT format: frame from 1, id, x, y, width, height, whether
            to score.
        frames: Frames with the detections to track.
        has_images: Whether the frames have pixels.
    """

    name: str
    truth: Sequence[tuple[float, ...]]
    frames: Sequence[FrameResult]
    has_images: bool


def street(seed: int, count: int, detector: Detector | None) -> TrackingSequence:
    """Return the street with the boxes of a detector, or with true boxes."""
    scene = StreetScene(640, 360, seed=seed, fps=FPS)
    truth: list[tuple[float, ...]] = []
    frames = []
    for number in range(count):
        image, boxes = scene.frame(number)
        for box in boxes:
            if box.label != "traffic light":
                truth.append(_row(number, box.track_id, box.box, scored=not box.difficult))
        frame = Frame(image, number, scene.__class__.__name__, number, Fraction(1, FPS))
        if detector is None:
            shown = [box for box in boxes if box.label != "traffic light" and not box.difficult]
            found = _detections([box.box for box in shown], [1.0] * len(shown))
        else:
            found = detector(frame)
            found = found.select(found.class_ids != 1 + LABELS.index("traffic light"))
        frames.append(FrameResult(frame, found))
    kind = "true boxes" if detector is None else "detections"
    return TrackingSequence(f"street {seed}, {kind}", truth, frames, True)


def mot_sequence(folder: Path) -> TrackingSequence:
    """Return a sequence of a folder in MOT format."""
    truth = [
        (row[0], row[1], *row[2:6], float(row[6] != 0)) for row in _read(folder / "gt" / "gt.txt")
    ]
    found: dict[int, list[list[float]]] = {}
    for row in _read(folder / "det" / "det.txt"):
        found.setdefault(int(row[0]), []).append(row)
    last = int(max(row[0] for row in truth))
    blank = np.zeros((64, 64, 3), np.uint8)
    frames = []
    for number in range(1, last + 1):
        rows = [row for row in found.get(number, []) if row[6] > _MIN_SCORE]
        boxes = [(x, y, x + w, y + h) for _, _, x, y, w, h, *_ in rows]
        frame = Frame(blank, number - 1, folder.name, number - 1, Fraction(1, FPS))
        frames.append(FrameResult(frame, _detections(boxes, [row[6] for row in rows])))
    return TrackingSequence(folder.name, truth, frames, False)


def score(sequence: TrackingSequence, method: str, folder: Path) -> dict[str, float | str]:
    """Track a sequence and return its scores."""
    from trackers.eval import evaluate_mot_sequence

    parameters = {} if sequence.has_images or method != "botsort" else {"enable_cmc": False}
    tracker = Tracker(method, frame_rate=FPS, parameters=parameters)
    rows: list[tuple[float, ...]] = []
    seconds = []
    for number, frame in enumerate(sequence.frames):
        started = time.perf_counter()
        result = tracker.process(FrameResult(frame.frame, frame.detections))
        seconds.append(time.perf_counter() - started)
        for item in result.detections:
            if item.track_id is not None:
                rows.append(_row(number, item.track_id, item.box, scored=True))
    truth, found = folder / "gt.txt", folder / "found.txt"
    _write(truth, sequence.truth)
    _write(found, rows)
    scores = evaluate_mot_sequence(truth, found, metrics=["CLEAR", "HOTA", "Identity"])
    hota, identity, clear = scores.HOTA, scores.Identity, scores.CLEAR
    assert hota is not None
    assert identity is not None
    assert clear is not None
    return {
        "sequence": sequence.name,
        "tracker": method,
        "HOTA": round(100 * hota.HOTA, 1),
        "IDF1": round(100 * identity.IDF1, 1),
        "MOTA": round(100 * clear.MOTA, 1),
        "switches": int(clear.IDSW),
        "ms": round(1000 * median(seconds), 2),
    }


def cost(method: str, objects: int = 20, frames: int = 200) -> float:
    """Return the median milliseconds of a frame with many moving objects."""
    rng = np.random.default_rng(0)
    places, speeds = rng.uniform(0, 1000, (objects, 2)), rng.uniform(-4, 4, (objects, 2))
    tracker = Tracker(method, frame_rate=FPS)
    image = np.zeros((720, 1280, 3), np.uint8)
    seconds = []
    for number in range(frames):
        corners = places + speeds * number
        boxes = np.hstack([corners, corners + 60]).tolist()
        frame = Frame(image, number, "cost", number, Fraction(1, FPS))
        result = FrameResult(frame, _detections(boxes, [0.9] * objects))
        started = time.perf_counter()
        tracker.process(result)
        seconds.append(time.perf_counter() - started)
    return 1000 * median(seconds)


def _detections(boxes: Sequence[Sequence[float]], scores: Sequence[float]) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.ones(len(scores), np.int32),
        _CLASSES,
    )


def _row(number: int, track: int, box: Sequence[float], *, scored: bool) -> tuple[float, ...]:
    x1, y1, x2, y2 = box
    return (number + 1, track, x1, y1, x2 - x1, y2 - y1, float(scored))


def _read(path: Path) -> list[list[float]]:
    return [[float(value) for value in line.split(",")] for line in path.read_text().split()]


def _write(path: Path, rows: Iterable[tuple[float, ...]]) -> None:
    """Write rows of the class that the evaluation scores."""
    lines = [
        f"{frame:.0f},{track:.0f},{x:.3f},{y:.3f},{width:.3f},{height:.3f},{scored:.0f},1,1"
        for frame, track, x, y, width, height, scored in rows
    ]
    path.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Print a table of all sequences and trackers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mot", type=Path, help="folder with sequences in MOT format")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=250)
    options = parser.parse_args()
    sequences = []
    with Detector("street", score_threshold=_MIN_SCORE) as detector:
        for seed in range(options.seeds):
            sequences.append(street(seed, options.frames, None))
            sequences.append(street(seed, options.frames, detector))
    if options.mot is not None:
        folders = sorted(path.parent.parent for path in options.mot.glob("*/gt/gt.txt"))
        sequences += [mot_sequence(folder) for folder in folders]
    columns = ("sequence", "tracker", "HOTA", "IDF1", "MOTA", "switches", "ms")
    print("| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns))
    with tempfile.TemporaryDirectory() as folder:
        for sequence in sequences:
            for method in METHODS:
                row = score(sequence, method, Path(folder))
                print("| " + " | ".join(str(row[name]) for name in columns) + " |", flush=True)
    for method in METHODS:
        print(f"{method}: {cost(method):.2f} ms a frame with 20 objects at 1280x720")


if __name__ == "__main__":
    main()
