"""`realtime-ssd` and `realtime-ssd detect`: find objects in cameras, files, streams and photos."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

__all__ = ["detect"]

_Repeated = Parameter(negative="", consume_multiple=False)


def detect(
    *,
    camera: Annotated[list[int] | None, _Repeated] = None,
    video: Annotated[list[Path] | None, _Repeated] = None,
    source: Annotated[list[str] | None, _Repeated] = None,
    model: str | None = None,
    backend: str = "auto",
    score_threshold: float | None = None,
    nms_threshold: float | None = None,
    top_k: int | None = None,
    classes: str = "",
    batch: int = 1,
    max_frames: int | None = None,
    output: Path | None = None,
    json: str | None = None,
    stats: Path | None = None,
    show: bool | None = None,
    overwrite: bool = False,
) -> None:
    """Find objects in cameras, video files, streams and photos.

    Files lose no frame; of cameras and streams the newest frame counts. Stop with Ctrl+C: what was
    written can be read. Without --output and --json a window is shown.

    Args:
        camera: Camera number; may be given several times, like the next two.
        video: Video file.
        source: Camera number, /dev/videoN, file, folder, glob, image, rtsp://, http(s):// or
            demo[:WxH[@FPS][,seed=N][,frames=N]].
        model: Name of a model (see `realtime-ssd models`) or ONNX file.
        backend: auto, onnxruntime or tensorrt.
        score_threshold: Detections must score above this; the model's own value by default.
        nms_threshold: Boxes of a class that overlap a better one by more than this IoU are dropped.
        top_k: Best candidates of a class that enter NMS.
        classes: Classes to look for, as in "person,car"; all by default.
        batch: Largest number of frames that go through the network together.
        max_frames: Frames to process of each source.
        output: Annotated video or image to write; a folder for several sources or photos.
        json: JSON lines to write, one a frame; "-" is standard output.
        stats: JSON file for counts, rates and latencies.
        show: Show a window.
        overwrite: Replace existing files.
    """
    from realtime_ssd.backends import BackendOptions, open_backend
    from realtime_ssd.cli.running import Run, open_sources
    from realtime_ssd.errors import UsageError
    from realtime_ssd.zoo import find_model

    if max_frames is not None and max_frames < 1:
        raise UsageError(f"--max-frames must be at least 1, not {max_frames}")
    words = [*map(str, camera or ()), *map(str, video or ()), *(source or ())]
    if not words:
        raise UsageError(
            "there is no source; give --camera 0, --video FILE or --source SPEC, for example "
            "realtime-ssd --source demo --output street.mp4 (see realtime-ssd detect --help)"
        )
    path, remark = find_model(model)
    if remark:
        print(remark, file=sys.stderr)
    sources = open_sources(words)
    try:
        live = any(one.info.live for one in sources)
        wanted = tuple(name.strip() for name in classes.split(",") if name.strip())
        options = BackendOptions(live, batch, score_threshold, nms_threshold, top_k, wanted)
        with open_backend(path, backend, options) as engine:
            visible = show if show is not None else output is None and json is None
            run = Run(sources, engine, max_frames)
            run.add_sinks(output, json, show=visible, overwrite=overwrite)
            status = run.go(stats, overwrite=overwrite)
    finally:
        for one in sources:
            one.close()
    if status:
        sys.exit(status)
