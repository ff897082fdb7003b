"""COCO: one JSON file with images, categories and annotations."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from realtime_ssd.core.errors import RealtimeSSDError
from realtime_ssd.core.files import check_not_deleted, open_output
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks.base import BaseSink
from realtime_ssd.sinks.frame_names import FrameNames

__all__ = ["CocoSink"]

_SAVE_INTERVAL = 1.0  # seconds between two saves
_SAVE_SHARE = 20  # a save may take one part in so many of the time


class CocoSink(BaseSink):
    """Writes all frames and their detections in COCO's format for data sets.

    Annotations also have "score", and "track_id" with tracking; images of videos also have
    "source", "frame" and "time". Category ids are the class ids of the model. The file is complete
    JSON after every save, about once a second; a full disk leaves the last one.

    Args:
        path: File.
        overwrite: Whether an existing file may be replaced.

    Raises:
        UsageError: If the file exists or cannot be written.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self._path = path
        self._file: BinaryIO | None = open_output(path, overwrite=overwrite)
        self._names = FrameNames()
        self._images: list[str] = []
        self._annotations: list[str] = []  # not saved yet
        self._count = 0
        self._saved_end = 0  # of the annotations, in bytes
        self._saved_tail = b""  # what makes the file complete after them
        self._next_save = time.monotonic() + _SAVE_INTERVAL

    def write(self, result: FrameResult) -> None:
        """See `Sink.write`."""
        if not self._images:
            labels = result.detections.labels
            self._start([(k, label) for k, label in enumerate(labels) if label != "background"])
        self._images.append(_compact(self._image(result)))
        for item, row in zip(result.detections, result.detections.to_dicts(), strict=True):
            self._count += 1
            x1, y1, x2, y2 = row["box"]
            width, height = round(x2 - x1, 3), round(y2 - y1, 3)
            values: dict[str, Any] = {
                "id": self._count,
                "image_id": len(self._images),
                "category_id": item.class_id,
                "bbox": [x1, y1, width, height],
                "area": round(width * height, 3),
                "iscrowd": 0,
                "score": row["score"],
            }
            if item.track_id is not None:
                values["track_id"] = item.track_id
            self._annotations.append(_compact(values))
        if time.monotonic() >= self._next_save:
            self._save()

    def _start(self, categories: list[tuple[int, str]]) -> None:
        rows = [{"id": number, "name": name, "supercategory": ""} for number, name in categories]
        head = {"info": {"description": "detections of realtime-ssd"}, "licenses": []}
        text = f'{_compact(head)[:-1]},\n"categories":{_compact(rows)},\n"annotations":['
        self._write_at(0, text.encode(), b"")

    def _image(self, result: FrameResult) -> dict[str, Any]:
        frame = result.frame
        image = {"id": len(self._images) + 1, "file_name": self._names(frame)}
        image |= {"width": frame.width, "height": frame.height}
        if not frame.name:
            image |= {"source": frame.source, "frame": frame.index, "time": round(frame.time, 6)}
        return image

    def _save(self) -> None:
        """Write the new annotations, and after them what makes the file complete."""
        started = time.monotonic()
        rows = ",\n".join(self._annotations)
        is_first = self._count == len(self._annotations)
        text = ("\n" if is_first else ",\n") + rows if rows else ""
        images = ",\n".join(self._images)
        self._write_at(self._saved_end, text.encode(), f'],\n"images":[\n{images}]}}\n'.encode())
        self._annotations.clear()
        now = time.monotonic()
        self._next_save = now + max(_SAVE_INTERVAL, _SAVE_SHARE * (now - started))

    def _write_at(self, start: int, data: bytes, tail: bytes) -> None:
        """Write data and a tail from a position on; after a failure restore what was there."""
        file = self._file
        if file is None:
            return
        check_not_deleted(file, self._path)
        try:
            _write_all(file, start, data + tail)
        except OSError as error:
            with suppress(OSError):
                _write_all(file, start, self._saved_tail)
            self._close_file()
            if not self._saved_tail:
                self._path.unlink(missing_ok=True)  # nothing complete was ever written
            raise RealtimeSSDError(
                f"writing '{self._path}' failed ({error.strerror}); it contains the frames up to "
                "about a second before"
            ) from None
        self._saved_end, self._saved_tail = start + len(data), tail

    def close(self) -> None:
        """See `Sink.close`; a file without a single frame is deleted."""
        if self._file is None:
            return
        if self._images:
            self._save()
            self._close_file()
            return
        self._close_file()
        if self._path.is_file() and not self._path.stat().st_size:
            self._path.unlink()

    def _close_file(self) -> None:
        file, self._file = self._file, None
        with suppress(OSError):
            if file is not None:
                file.close()


def _write_all(file: BinaryIO, start: int, data: bytes) -> None:
    """Write data at a position and end the file there."""
    file.seek(start)
    remaining = memoryview(data)
    while remaining:
        remaining = remaining[file.write(remaining) :]
    file.truncate(start + len(data))


def _compact(values: object) -> str:
    return json.dumps(values, separators=(",", ":"))
