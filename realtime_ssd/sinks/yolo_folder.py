"""YOLO labels: one text file per frame, boxes relative to the size of the frame."""

from __future__ import annotations

import json
from pathlib import Path

from realtime_ssd.core.detections import Detections
from realtime_ssd.core.files import check_folder_not_deleted, check_output, write_output
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.base import BaseSink
from realtime_ssd.sinks.frame_names import FrameNames, prepare_folder

__all__ = ["YOLO_IMAGES", "YOLO_LABELS", "YoloSink", "classes_without_background"]

YOLO_LABELS, YOLO_IMAGES, _DATA = "labels", "images", "data.yaml"


class YoloSink(BaseSink):
    """Writes `labels/NAME.txt` for each frame with detections, and `data.yaml` with the classes.

    A line is "class x y width height": the center and the size of the box, relative to those of the
    frame. Classes are numbered from 0 without the background. With the frames in `images/`, under
    the names that `FrameSink` uses, the folder is a data set.

    Args:
        folder: Folder of the data set; created if it does not exist.
        overwrite: Whether labels may exist already.

    Raises:
        UsageError: If there are labels already, or the folder cannot be created.
    """

    def __init__(self, folder: Path, *, overwrite: bool = False) -> None:
        self._folder, self._names = folder, FrameNames()
        check_output(folder / _DATA, overwrite=overwrite)
        prepare_folder(folder / YOLO_LABELS, overwrite=overwrite)
        self._has_data = False

    def write(self, result: FrameResult) -> None:
        """See `Sink.write`."""
        check_folder_not_deleted(self._folder / YOLO_LABELS)
        detections = result.detections
        if not self._has_data:
            self._write_data(detections)
        name = self._names(result.frame).rpartition(".")[0]
        if len(detections):
            size = (result.frame.width, result.frame.height)
            path = self._folder / YOLO_LABELS / f"{name}.txt"
            write_output(path, _lines(detections, size).encode())

    def _write_data(self, detections: Detections) -> None:
        """Write the description of the data set; JSON strings are also YAML."""
        _, names = classes_without_background(detections.labels)
        lines = [f"path: {json.dumps(str(self._folder.resolve()))}"]
        lines += [f"train: {YOLO_IMAGES}", f"val: {YOLO_IMAGES}", f"nc: {len(names)}", "names:"]
        lines += [f"  {number}: {json.dumps(name)}" for number, name in enumerate(names)]
        write_output(self._folder / _DATA, ("\n".join(lines) + "\n").encode())
        self._has_data = True


def classes_without_background(labels: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    """Return the number of the first class that is not the background, and the names from it on."""
    first = 1 if labels[:1] == ("background",) else 0
    return first, labels[first:]


def _lines(detections: Detections, size: tuple[int, int]) -> str:
    first, _ = classes_without_background(detections.labels)
    lines = []
    for item in detections:
        x1, x2 = (min(max(value / size[0], 0.0), 1.0) for value in item.box[::2])
        y1, y2 = (min(max(value / size[1], 0.0), 1.0) for value in item.box[1::2])
        values = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
        lines.append(" ".join([str(item.class_id - first), *(f"{value:.6f}" for value in values)]))
    return "\n".join(lines) + "\n"
