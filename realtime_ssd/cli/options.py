"""Options of `realtime-ssd detect` as dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

if TYPE_CHECKING:
    from realtime_ssd.annotators import BoxAnnotator

__all__ = [
    "GROUPS",
    "DetectOptions",
    "DrawOptions",
    "ExtensionOptions",
    "InputOptions",
    "OutputOptions",
]


_TITLES = ("sources", "detection", "outputs", "drawing", "scene", "extensions")
GROUPS = {title: Group(title.capitalize(), sort_key=number) for number, title in enumerate(_TITLES)}
"""Panels of the help, in order."""

_Repeatable = Parameter(negative="", consume_multiple=False)


@Parameter(name="*", group=GROUPS["detection"])
@dataclass(frozen=True)
class DetectOptions:
    """Model and inference.

    Attributes:
        model: Name of a model (see `realtime-ssd models`) or ONNX file; by default a pulled general
            model, else the bundled one.
        backend: Name of an installed backend, such as onnxruntime or tensorrt; auto takes the
            fastest one that runs on this machine.
        score_threshold: Detections must score above this; by class as in person=0.6,car=0.4, with
            0.5 in front for all others; the model's own value by default.
        iou_threshold: IoU above which a lower-scored box of the same class is suppressed; the
            model's own value by default.
        pre_nms_top_k: Maximum candidates per class before NMS; the model's own value by default.
        agnostic_nms: Suppress boxes that overlap a better one of any class.
        classes: Classes to detect, as in "person,car"; all by default.
        batch: Largest number of frames that pass through the network together.
        tile: Also run the model on tiles of larger frames, WIDTHxHEIGHT in pixels, to find small
            objects; auto takes twice the input of the model.
        overlap: Smallest overlap of neighboring tiles, as a fraction of their side.
        max_frames: Frames to process of each source; all by default.
        device: Number of the GPU that runs the model, from 0; the first by default.
        decoder: Where video files are decoded: cpu, gpu, or auto (the GPU if TensorRT runs there).
        trust_model: Run a graph with operators or sizes that SSDs do not need.
    """

    model: str | None = None
    backend: str = "auto"
    score_threshold: str | None = None
    iou_threshold: float | None = None
    pre_nms_top_k: int | None = None
    agnostic_nms: Annotated[bool, Parameter(negative="")] = False
    classes: str = ""
    batch: int = 1
    tile: str | None = None
    overlap: float = 0.2
    max_frames: int | None = None
    device: int | None = None
    decoder: Literal["auto", "cpu", "gpu"] = "auto"
    trust_model: Annotated[bool, Parameter(negative="")] = False

    def score_thresholds(self) -> float | dict[str, float] | None:
        """Return the value of `score_threshold`: one number, or numbers by class name.

        Raises:
            UsageError: If it is neither.
        """
        if self.score_threshold is None:
            return None
        return _parse_scores(self.score_threshold)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names in `classes`."""
        return tuple(name.strip() for name in self.classes.split(",") if name.strip())


def _parse_scores(text: str) -> float | dict[str, float]:
    from realtime_ssd.backends.model_options import OTHER_CLASSES
    from realtime_ssd.core.errors import UsageError

    scores: dict[str, float] = {}
    for part in text.split(","):
        name, separator, number = part.rpartition("=")
        key = name.strip() if separator else OTHER_CLASSES
        try:
            score = float(number)
        except ValueError:
            raise UsageError(
                "`score_threshold` must be a number between 0 and 1, or such numbers by class as "
                f"in person=0.6,car=0.4, not '{text}'"
            ) from None
        if scores.setdefault(key, score) != score:
            raise UsageError(f"`score_threshold` has two values for class '{key}' in '{text}'")
    return scores[OTHER_CLASSES] if list(scores) == [OTHER_CLASSES] else scores


@Parameter(name="*", group=GROUPS["sources"])
@dataclass(frozen=True)
class InputOptions:
    """Parts of the sources.

    Attributes:
        recursive: Search the subfolders of folders.
        start: Where to begin in video files, in seconds or as h:m:s; at the start by
            default.
        end: Where to stop in video files, likewise; at the end by default.
        frame_step: Use every n-th frame.
        roi: Detect only in this rectangle, as x,y,width,height in pixels.
        interval: Seconds after which an image, such as the snapshot of a camera at a URL, is read
            again.
        wait: Keep trying cameras and streams that cannot be opened at the start.
        max_pixels: Pixels that a frame or photo may have; larger ones are refused unread.
        local_redirects: Whether web servers may redirect to this machine or a private network;
            services should not let them.
    """

    recursive: Annotated[bool, Parameter(negative="")] = False
    start: str | None = None
    end: str | None = None
    frame_step: int = 1
    roi: str | None = None
    interval: float | None = None
    wait: Annotated[bool, Parameter(negative="")] = False
    max_pixels: int = 200_000_000
    local_redirects: bool = True


@Parameter(name="*", group=GROUPS["outputs"])
@dataclass(frozen=True)
class OutputOptions:
    """Outputs.

    Attributes:
        output: Annotated video (.mp4, .m4v, .mov, .mkv, .avi, .webm) or photo to write; a folder
            for several sources or photos; or a stream to publish (rtsp://, rtmp://, srt://, udp://
            or a .m3u8 playlist).
        json: JSON lines to write, one per frame; "-" is standard output.
        csv: CSV file with one row per detection; "-" is standard output.
        coco: COCO file with images, categories and annotations.
        yolo: Folder for YOLO labels of the frames.
        mot: MOTChallenge results; a folder for several sources.
        save_crops: Folder for the detected objects, cut out of the frames.
        save_frames: Frames to save without annotations: those with detections, or all.
        frames_folder: Folder for them; by default images/ in the folder of --yolo, else frames/.
        stats: JSON file for counts, rates and latencies.
        encoder: Video encoder: auto (NVENC where it opens, else the CPU), libx264, libx265,
            libsvtav1, libvpx-vp9, h264_nvenc, hevc_nvenc or av1_nvenc.
        quality: Quality of the video from 1 to 100; by default about 60, less where the video would
            be larger than twice the source.
        bitrate: Average bit rate of the video instead, as in 800k or 4M.
        show: Show a window; by default if results are written nowhere else.
        overwrite: Replace existing files; a source is never replaced.
    """

    output: str | None = None
    json: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    csv: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    coco: Path | None = None
    yolo: Path | None = None
    mot: Path | None = None
    save_crops: Path | None = None
    save_frames: Literal["detected", "all"] | None = None
    frames_folder: Path | None = None
    stats: Path | None = None
    encoder: str = "auto"
    quality: int | None = None
    bitrate: str | None = None
    show: bool | None = None
    overwrite: Annotated[bool, Parameter(negative="")] = False

    @property
    def window(self) -> bool:
        """Whether to show a window: as the user chose, else if there is no other output."""
        if self.show is not None:
            return self.show
        return not self.has_results

    @property
    def has_results(self) -> bool:
        """Whether results are written anywhere; statistics are not results."""
        return self.output is not None or bool(self.sinks()) or self.mot is not None

    def sinks(self) -> list[tuple[str, str]]:
        """Return name and target of the chosen sinks that receive all sources."""
        folder = "frames" if self.yolo is None else str(self.yolo / "images")
        chosen = {
            "json": self.json,
            "csv": self.csv,
            "coco": self.coco,
            "yolo": self.yolo,
            "crops": self.save_crops,
            "frames": self.save_frames and f"{self.save_frames}:{self.frames_folder or folder}",
        }
        return [(name, str(target)) for name, target in chosen.items() if target is not None]

    def locations(self) -> list[str]:
        """Return files, folders and URLs with results."""
        from realtime_ssd.sinks.publish_targets import display_url

        targets = [str(item) for item in (self.output, self.mot) if item is not None]
        for name, target in self.sinks():
            targets.append(target.partition(":")[2] if name == "frames" else target)
        if self.stats is not None:
            targets.append(str(self.stats))
        return [display_url(target) for target in targets if target != "-"]


@Parameter(name="*", group=GROUPS["drawing"])
@dataclass(frozen=True)
class DrawOptions:
    """Boxes and labels.

    Attributes:
        line_width: Width of the lines of boxes in pixels; by default it suits the image.
        font_size: Size of the font of labels in pixels; by default it suits the image.
        labels: What labels show: full (class, track and score), class, or none.
        hide_scores: Draw labels without scores.
    """

    line_width: int | None = None
    font_size: int | None = None
    labels: Literal["full", "class", "none"] = "full"
    hide_scores: Annotated[bool, Parameter(negative="")] = False

    def annotator(self) -> BoxAnnotator:
        """Return the annotator that draws this way.

        Raises:
            UsageError: If a value is out of range.
        """
        from realtime_ssd.annotators import BoxAnnotator

        return BoxAnnotator(
            line_width=self.line_width,
            font_size=self.font_size,
            labels=self.labels,
            scores=not self.hide_scores,
        )


@Parameter(name="*", group=GROUPS["extensions"])
@dataclass(frozen=True)
class ExtensionOptions:
    """Installed extensions, each as NAME or NAME:ARGUMENT; all may be repeated.

    Attributes:
        processor: Processor that works on every result before it is drawn and written.
        annotator: Annotator that draws on the annotated image, after the boxes.
        sink: Further output, as NAME:TARGET or a file whose suffix selects the format.
        observer: Observer of counts and latencies.
    """

    processor: Annotated[list[str] | None, _Repeatable] = None
    annotator: Annotated[list[str] | None, _Repeatable] = None
    sink: Annotated[list[str] | None, _Repeatable] = None
    observer: Annotated[list[str] | None, _Repeatable] = None
