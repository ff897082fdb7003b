"""`realtime-ssd detect`, the default command: objects in cameras, files, streams and photos."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from realtime_ssd.cli.options import (
    GROUPS,
    DetectOptions,
    DrawOptions,
    ExtensionOptions,
    InputOptions,
    OutputOptions,
)
from realtime_ssd.cli.scene_options import SceneOptions

__all__ = ["detect"]

_Repeatable = Parameter(
    negative="", consume_multiple=False, allow_leading_hyphen=True, group=GROUPS["sources"]
)
DEFAULT_DETECTION, DEFAULT_OUTPUTS = DetectOptions(), OutputOptions()
DEFAULT_DRAWING, DEFAULT_EXTENSIONS = DrawOptions(), ExtensionOptions()
DEFAULT_INPUTS, DEFAULT_SCENE = InputOptions(), SceneOptions()


def detect(
    *sources: str,
    camera: Annotated[list[str] | None, _Repeatable] = None,
    video: Annotated[list[str] | None, _Repeatable] = None,
    source: Annotated[list[str] | None, _Repeatable] = None,
    inputs: InputOptions = DEFAULT_INPUTS,
    detection: DetectOptions = DEFAULT_DETECTION,
    outputs: OutputOptions = DEFAULT_OUTPUTS,
    drawing: DrawOptions = DEFAULT_DRAWING,
    scene: SceneOptions = DEFAULT_SCENE,
    extensions: ExtensionOptions = DEFAULT_EXTENSIONS,
) -> None:
    """Detect objects in cameras, video files, streams and photos.

    Every frame of a file is processed; of cameras and streams the newest frame is. Stop with
    Ctrl+C: what was written so far can be read. Without an output, such as --output or --json, a
    window is shown; a photo stays in it until a key is pressed.

    Args:
        sources: Files, folders, globs ("clips/**/*.mp4"), camera numbers, URLs (rtsp://, http(s)://
            of a stream, video, playlist or image), - for standard input, or
            demo[:WxH[@FPS][,seed=N][,frames=N]].
        camera: Camera number or device, with settings as in "0?size=1280x720&fps=30". This option
            and the next two may be repeated.
        video: Video file, even if its name looks like a camera number.
        source: Any source, like an argument without an option.
        inputs: Parts of the sources.
        detection: Model and inference.
        outputs: Outputs.
        drawing: Boxes and labels.
        scene: Tracking, zones and privacy.
        extensions: Installed extensions.
    """
    from realtime_ssd.cli.inputs import name_sources

    names = name_sources(sources, camera or (), video or (), source or ())
    status = _run(names, inputs, detection, outputs, drawing, scene, extensions)
    if status:
        sys.exit(status)


def _decodes_on_gpu(detection: DetectOptions) -> bool:
    """Return whether video files are decoded on the GPU.

    Raises:
        UsageError: If the decoder is requested on another GPU than the first.
    """
    from realtime_ssd.backends import decodes_surfaces
    from realtime_ssd.core.errors import UsageError

    if detection.device:
        if detection.decoder == "gpu":
            raise UsageError(
                "`decoder` gpu decodes on GPU 0; set `device` to 0 or `decoder` to cpu"
            )
        return False
    return detection.decoder == "gpu" or (
        detection.decoder == "auto" and decodes_surfaces(detection.backend)
    )


def _run(
    names: list[str],
    inputs: InputOptions,
    detection: DetectOptions,
    outputs: OutputOptions,
    drawing: DrawOptions,
    scene_options: SceneOptions,
    extensions: ExtensionOptions,
) -> int:
    """Open everything, run, close everything; return the exit status."""
    from realtime_ssd.backends import BackendOptions, open_backend
    from realtime_ssd.backends.region import RegionBackend, check_region
    from realtime_ssd.cli.inputs import parse_roi, source_options
    from realtime_ssd.cli.run import Run
    from realtime_ssd.cli.scene import Scene
    from realtime_ssd.core.tiles import parse_tile
    from realtime_ssd.pipeline import PipelineOptions
    from realtime_ssd.sources import open_sources
    from realtime_ssd.zoo import find_model

    tile = parse_tile(detection.tile, detection.overlap)
    pipeline_options = PipelineOptions(
        max_frames=detection.max_frames, annotators=(drawing.annotator(),), wait=inputs.wait
    )
    roi = None if inputs.roi is None else parse_roi(inputs.roi)
    path, remark = find_model(detection.model)
    on_gpu = _decodes_on_gpu(detection)
    sources = open_sources(names, source_options(inputs, "gpu" if on_gpu else "cpu"))
    try:
        if roi is not None:
            check_region(roi, [source.info for source in sources])
        options = BackendOptions(
            live=any(source.info.live for source in sources),
            batch=detection.batch,
            score_threshold=detection.score_thresholds(),
            iou_threshold=detection.iou_threshold,
            pre_nms_top_k=detection.pre_nms_top_k,
            agnostic_nms=detection.agnostic_nms,
            classes=detection.class_names,
            trust_model=detection.trust_model,
            device=detection.device,
            tile=tile,
        )
        infos, overwrite = [source.info for source in sources], outputs.overwrite
        with (
            open_backend(path, detection.backend, options) as opened,
            Scene(
                scene_options,
                infos,
                opened.spec.labels,
                detection.class_names,
                overwrite=overwrite,
            ) as scene,
        ):
            backend = opened if roi is None else RegionBackend(opened, roi)
            run = Run(sources, backend, pipeline_options, extensions, scene)
            run.add_sinks(outputs)
            if remark:
                print(remark, file=sys.stderr)
            return run.run(outputs.stats)
    finally:
        for source in sources:
            source.close()
