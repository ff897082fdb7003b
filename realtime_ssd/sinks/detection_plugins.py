"""Plug-ins of the sinks for detections and for images without annotations.

Each imports the module of its sink only when it opens one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from realtime_ssd.core.errors import UsageError
from realtime_ssd.sinks.base import Sink
from realtime_ssd.sources.base import SourceInfo

__all__ = ["COCO", "CROPS", "CSV", "FRAMES", "MOT", "YOLO"]


@dataclass(frozen=True)
class _FilePlugin:
    """Opens a sink that writes one file; see `SinkPlugin`."""

    create: Callable[[str, bool], Sink]
    suffixes: tuple[str, ...] = ()
    per_source: bool = False

    def files(self, target: str, info: SourceInfo) -> tuple[Path, ...]:
        """See `SinkPlugin.files`."""
        return () if target == "-" else (Path(target),)

    def open(self, target: str, info: SourceInfo, overwrite: bool) -> Sink:
        """See `SinkPlugin.open`."""
        return self.create(_required(target), overwrite)


@dataclass(frozen=True)
class _FolderPlugin:
    """Opens a sink that writes into folders; see `SinkPlugin`."""

    create: Callable[[str, bool], Sink]
    written: Callable[[str], Path]
    suffixes: tuple[str, ...] = ()
    per_source: bool = False

    def files(self, target: str, info: SourceInfo) -> tuple[Path, ...]:
        """See `SinkPlugin.files`; the files of a folder are not known before the run."""
        return ()

    def folders(self, target: str) -> tuple[Path, ...]:
        """Return the folders that receive files; none of them may hold a source."""
        return (self.written(target),)

    def open(self, target: str, info: SourceInfo, overwrite: bool) -> Sink:
        """See `SinkPlugin.open`."""
        return self.create(_required(target), overwrite)


def _required(target: str) -> str:
    if not target:
        raise UsageError("this output needs a target, as in csv:detections.csv or crops:FOLDER")
    return target


def _csv(target: str, overwrite: bool) -> Sink:
    from realtime_ssd.sinks.detection_csv import CsvSink

    return CsvSink(target, overwrite=overwrite)


def _mot(target: str, overwrite: bool) -> Sink:
    from realtime_ssd.sinks.mot_file import MotSink

    return MotSink(target, overwrite=overwrite)


def _coco(target: str, overwrite: bool) -> Sink:
    from realtime_ssd.sinks.coco_file import CocoSink

    return CocoSink(Path(target), overwrite=overwrite)


def _yolo(target: str, overwrite: bool) -> Sink:
    from realtime_ssd.sinks.yolo_folder import YoloSink

    return YoloSink(Path(target), overwrite=overwrite)


def _crops(target: str, overwrite: bool) -> Sink:
    from realtime_ssd.sinks.saved_images import CropSink

    return CropSink(Path(target), overwrite=overwrite)


def _frames(target: str, overwrite: bool) -> Sink:
    from realtime_ssd.sinks.saved_images import FrameSink

    which, folder = _frames_target(target)
    return FrameSink(folder, which, overwrite=overwrite)


def _frames_target(target: str) -> tuple[Literal["detected", "all"], Path]:
    """Return which frames are saved and the folder of "FOLDER" or "detected:FOLDER"."""
    which, separator, folder = target.partition(":")
    if separator and which in ("detected", "all"):
        return cast('Literal["detected", "all"]', which), Path(folder)
    return "all", Path(target)


CSV = _FilePlugin(_csv, (".csv",))
COCO = _FilePlugin(_coco)
MOT = _FilePlugin(_mot, per_source=True)
YOLO = _FolderPlugin(_yolo, lambda target: Path(target) / "labels")
CROPS = _FolderPlugin(_crops, Path)
FRAMES = _FolderPlugin(_frames, lambda target: _frames_target(target)[1])
