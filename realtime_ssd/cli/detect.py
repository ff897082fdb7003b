"""`realtime-ssd detect`, the default command: objects in cameras, files, streams and photos."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from realtime_ssd.cli.options import DetectOptions, DrawOptions, ExtensionOptions, OutputOptions
from realtime_ssd.cli.scene_options import SceneOptions

__all__ = ["detect"]

_Repeatable = Parameter(negative="", consume_multiple=False)
DEFAULT_DETECTION, DEFAULT_OUTPUTS = DetectOptions(), OutputOptions()
DEFAULT_DRAWING, DEFAULT_EXTENSIONS = DrawOptions(), ExtensionOptions()
DEFAULT_SCENE = SceneOptions()


def detect(
    *,
    camera: Annotated[list[int] | None, _Repeatable] = None,
    video: Annotated[list[str] | None, _Repeatable] = None,
    source: Annotated[list[str] | None, _Repeatable] = None,
    detection: DetectOptions = DEFAULT_DETECTION,
    outputs: OutputOptions = DEFAULT_OUTPUTS,
    drawing: DrawOptions = DEFAULT_DRAWING,
    scene: SceneOptions = DEFAULT_SCENE,
    extensions: ExtensionOptions = DEFAULT_EXTENSIONS,
) -> None:
    """Detect objects in cameras, video files, streams and photos.

    Every frame of a file is processed; of cameras and streams the newest frame is. Stop with
    Ctrl+C: what was written so far can be read. Without --output and --json a window is shown;
    a photo stays in it until a key is pressed.

    Args:
        camera: Camera number. This option and the next two may be repeated.
        video: Video file, also on the network (http://host/clip.mp4).
        source: Camera number, /dev/videoN, file, folder, glob, image, rtsp://, http(s):// or
            demo[:WxH[@FPS][,seed=N][,frames=N]].
        detection: Model and inference.
        outputs: Outputs.
        drawing: Boxes and labels.
        scene: Tracking, zones and privacy.
        extensions: Installed extensions.
    """
    from realtime_ssd.core.errors import UsageError

    names = [*map(str, camera or ()), *map(_as_file, video or ()), *(source or ())]
    if not names:
        raise UsageError(
            "no source was specified; use --camera 0, --video FILE or --source SPEC, for example "
            "realtime-ssd --source demo --output street.mp4 (see realtime-ssd detect --help)"
        )
    status = _run(names, detection, outputs, drawing, scene, extensions)
    if status:
        sys.exit(status)


def _as_file(video: str) -> str:
    """Return a name that means the file even where it looks like a camera or the demo."""
    if video.isdigit() or video == "demo" or video.startswith("demo:"):
        return f"./{video}"
    return video


def _run(
    names: list[str],
    detection: DetectOptions,
    outputs: OutputOptions,
    drawing: DrawOptions,
    scene_options: SceneOptions,
    extensions: ExtensionOptions,
) -> int:
    """Open everything, run, close everything; return the exit status."""
    from realtime_ssd.backends import BackendOptions, decodes_surfaces, open_backend
    from realtime_ssd.cli.run import Run, open_sources
    from realtime_ssd.cli.scene import Scene
    from realtime_ssd.pipeline import PipelineOptions
    from realtime_ssd.zoo import find_model

    pipeline_options = PipelineOptions(
        max_frames=detection.max_frames, annotators=(drawing.annotator(),)
    )
    path, remark = find_model(detection.model)
    on_gpu = detection.decoder == "gpu" or (
        detection.decoder == "auto" and decodes_surfaces(detection.backend)
    )
    sources = open_sources(names, decoder="gpu" if on_gpu else "cpu")
    try:
        options = BackendOptions(
            live=any(source.info.live for source in sources),
            batch=detection.batch,
            score_threshold=detection.score_threshold,
            iou_threshold=detection.iou_threshold,
            pre_nms_top_k=detection.pre_nms_top_k,
            classes=detection.class_names,
            trust_model=detection.trust_model,
        )
        infos, overwrite = [source.info for source in sources], outputs.overwrite
        with (
            open_backend(path, detection.backend, options) as backend,
            Scene(scene_options, infos, backend.spec.labels, overwrite=overwrite) as scene,
        ):
            run = Run(sources, backend, pipeline_options, extensions, scene)
            run.add_sinks(outputs)
            if remark:
                print(remark, file=sys.stderr)
            return run.run(outputs.stats)
    finally:
        for source in sources:
            source.close()
