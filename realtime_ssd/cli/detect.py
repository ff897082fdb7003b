"""`realtime-ssd` and `realtime-ssd detect`: find objects in cameras, files, streams and photos."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

__all__ = ["DetectOptions", "Results", "detect"]

_Repeated = Parameter(negative="", consume_multiple=False)


@Parameter(name="*")
@dataclass(frozen=True)
class DetectOptions:
    """What to look for, with what.

    Attributes:
        model: Name of a model (see `realtime-ssd models`) or ONNX file.
        backend: auto, onnxruntime or tensorrt.
        score_threshold: Detections must score above this; the model's own value by default.
        iou_threshold: Boxes of a class that overlap a better one by more than this IoU are dropped.
        pre_nms_top_k: Best candidates of a class that enter NMS.
        classes: Classes to look for, as in "person,car"; all by default.
        batch: Largest number of frames that go through the network together.
        max_frames: Frames to process of each source.
        decoder: Where video files are decoded: cpu, gpu, or auto, the GPU if TensorRT runs there.
    """

    model: str | None = None
    backend: str = "auto"
    score_threshold: float | None = None
    iou_threshold: float | None = None
    pre_nms_top_k: int | None = None
    classes: str = ""
    batch: int = 1
    max_frames: int | None = None
    decoder: Literal["auto", "cpu", "gpu"] = "auto"


@Parameter(name="*")
@dataclass(frozen=True)
class Results:
    """Where the results go.

    Attributes:
        output: Annotated video (.mp4, .m4v, .mov, .mkv, .avi, .webm) or photo to write; a folder
            for several sources or photos.
        json: JSON lines to write, one a frame; "-" is standard output.
        stats: JSON file for counts, rates and latencies.
        show: Show a window; by default where there is no --output and no --json.
        overwrite: Replace existing files; a source is never replaced.
    """

    output: Path | None = None
    json: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    stats: Path | None = None
    show: bool | None = None
    overwrite: Annotated[bool, Parameter(negative="")] = False

    @property
    def window(self) -> bool:
        """Whether to show a window: as the user says, else where there is no other result."""
        if self.show is not None:
            return self.show
        return self.output is None and self.json is None


def detect(
    *,
    camera: Annotated[list[int] | None, _Repeated] = None,
    video: Annotated[list[str] | None, _Repeated] = None,
    source: Annotated[list[str] | None, _Repeated] = None,
    finding: DetectOptions = DetectOptions(),
    results: Results = Results(),
) -> None:
    """Find objects in cameras, video files, streams and photos.

    Files lose no frame; of cameras and streams the newest frame counts. Stop with Ctrl+C: what was
    written can be read. Without --output and --json a window is shown; a photo stays in it until
    a key is pressed.

    Args:
        camera: Camera number; may be given several times, like the next two.
        video: Video file, also on the network (http://host/clip.mp4).
        source: Camera number, /dev/videoN, file, folder, glob, image, rtsp://, http(s):// or
            demo[:WxH[@FPS][,seed=N][,frames=N]].
        finding: What to look for, with what.
        results: Where the results go.
    """
    from realtime_ssd.core.errors import UsageError

    most = finding.max_frames
    if most is not None and most < 1:
        raise UsageError(f"--max-frames must be at least 1, not {most}")
    words = [*map(str, camera or ()), *map(_file, video or ()), *(source or ())]
    if not words:
        raise UsageError(
            "there is no source; give --camera 0, --video FILE or --source SPEC, for example "
            "realtime-ssd --source demo --output street.mp4 (see realtime-ssd detect --help)"
        )
    status = _run(words, finding, results)
    if status:
        sys.exit(status)


def _file(video: str) -> str:
    """Keep a file named like a camera or the demo a file; leave URLs as they are."""
    if video.isdigit() or video == "demo" or video.startswith("demo:"):
        return f"./{video}"
    return video


def _run(words: list[str], finding: DetectOptions, results: Results) -> int:
    """Open everything, run, close everything; give the exit status."""
    from realtime_ssd.backends import BackendOptions, open_backend
    from realtime_ssd.cli.run import Run, open_sources
    from realtime_ssd.zoo import find_model

    path, remark = find_model(finding.model)
    sources = open_sources(words, gpu=_on_gpu(finding))
    try:
        options = BackendOptions(
            live=any(one.info.live for one in sources),
            batch=finding.batch,
            score_threshold=finding.score_threshold,
            iou_threshold=finding.iou_threshold,
            pre_nms_top_k=finding.pre_nms_top_k,
            classes=tuple(name.strip() for name in finding.classes.split(",") if name.strip()),
        )
        with open_backend(path, finding.backend, options) as backend:
            run = Run(sources, backend, finding.max_frames)
            run.add_sinks(results)
            if remark:
                print(remark, file=sys.stderr)
            return run.go(results.stats)
    finally:
        for one in sources:
            one.close()


def _on_gpu(finding: DetectOptions) -> bool:
    """Tell whether to decode video on the GPU."""
    from realtime_ssd.backends import decodes_surfaces

    if finding.decoder == "auto":
        return decodes_surfaces(finding.backend)
    return finding.decoder == "gpu"
