"""`realtime-ssd explain`: why a model detected what it detected in an image."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from realtime_ssd.cli.options import DetectOptions
from realtime_ssd.core.errors import UsageError

if TYPE_CHECKING:
    from realtime_ssd.core.explanation import Explanation
    from realtime_ssd.core.frames import Frame
    from realtime_ssd.core.spec import ModelSpec

__all__ = ["explain"]

_FORMATS = (".png", ".jpg", ".jpeg", ".webp")


def explain(
    image: Path,
    *,
    model: str | None = None,
    output: Path | None = None,
    json: Path | None = None,
    score_threshold: str | None = None,
    iou_threshold: float | None = None,
    classes: str = "",
    trust_model: Annotated[bool, Parameter(negative="")] = False,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Show which default box found each object, what it suppressed, and what was nearly detected.

    Args:
        image: Image file.
        model: Name of a model (see `realtime-ssd models`) or ONNX file; by default a pulled general
            model, else the bundled one.
        output: Also write a sheet to this image file (.png, .jpg).
        json: Also write all values, in pixels of the image, to this file.
        score_threshold: Detections must score above this, or by class as in person=0.6,car=0.4; the
            model's own value by default.
        iou_threshold: IoU above which a lower-scored box of the same class is suppressed; the
            model's own value by default.
        classes: Classes to detect, as in "person,car"; all by default.
        trust_model: Run a graph with operators or sizes that SSDs do not need.
        overwrite: Replace existing files.
    """
    import sys

    from realtime_ssd.core.files import check_output, write_output
    from realtime_ssd.zoo import find_model

    for file in filter(None, (output, json)):
        check_output(file, overwrite=overwrite)
    if output is not None and output.suffix.lower() not in _FORMATS:
        raise UsageError(f"'{output}' is not an image file; use {' or '.join(_FORMATS)}")
    path, remark = find_model(model)
    selection = DetectOptions(
        score_threshold=score_threshold,
        iou_threshold=iou_threshold,
        classes=classes,
        trust_model=trust_model,
    )
    frame = _read(image)
    spec, explanation = _explain(path, frame, selection)
    if remark:
        print(remark, file=sys.stderr)
    _print(explanation)
    if json is not None:
        values = {"image": str(image), "model": spec.name, **explanation.to_dict()}
        write_output(json, (dumps(values, indent=1, ensure_ascii=False) + "\n").encode())
    if output is not None:
        _write_sheet(output, frame, explanation, f"{spec.name} on {image.name}")


def _read(image: Path) -> Frame:
    """Return the image of a file.

    Raises:
        UsageError: If there is no such file.
        SourceError: If it is not an image.
    """
    from realtime_ssd.sources.images import Images

    if not image.is_file():
        raise UsageError(f"the image '{image}' does not exist; use an image file")
    return next(iter(Images(image)))


def _explain(path: Path, frame: Frame, selection: DetectOptions) -> tuple[ModelSpec, Explanation]:
    """Run a model on an image with ONNX Runtime.

    Raises:
        UsageError: If the model is an engine, or an option is invalid.
        ModelError: If the model cannot be read or run.
    """
    from realtime_ssd.backends import BackendOptions, check_options, class_ids
    from realtime_ssd.backends.model_options import with_options
    from realtime_ssd.backends.onnxruntime import OnnxRuntimeBackend
    from realtime_ssd.core.explanation import explain as explain_outputs
    from realtime_ssd.core.spec import read_spec

    if path.suffix != ".onnx":
        raise UsageError(f"'{path}' is not an ONNX file; explain the file it was built from")
    options = BackendOptions(
        live=True,
        score_threshold=selection.score_thresholds(),
        iou_threshold=selection.iou_threshold,
        classes=selection.class_names,
        trust_model=selection.trust_model,
    )
    check_options(options)
    spec = with_options(read_spec(path, trust_model=options.trust_model), options)
    with OnnxRuntimeBackend(path, spec, options) as backend:
        outputs = backend.raw_outputs(frame)
    columns = class_ids(spec, options.classes)
    return spec, explain_outputs(spec, *outputs, frame.width, frame.height, columns)


def _print(explanation: Explanation) -> None:
    from realtime_ssd.annotators.explanation_sheet import describe_candidate, describe_detection

    for number, item in enumerate(explanation.detections, start=1):
        print("\n   ".join(describe_detection(number, item.candidate, item.rivals)))
    if not explanation.detections:
        print("nothing was detected")
    if explanation.near_misses:
        print("just below the threshold:")
        for number, miss in enumerate(explanation.near_misses):
            print(describe_candidate(number, miss))


def _write_sheet(path: Path, frame: Frame, explanation: Explanation, title: str) -> None:
    import cv2

    from realtime_ssd.annotators.explanation_sheet import draw_explanation
    from realtime_ssd.core.files import write_output

    sheet = draw_explanation(frame.image, explanation, title)
    write_output(path, cv2.imencode(path.suffix.lower(), sheet)[1].tobytes())
    print(f"{path}: detections, their default boxes and what they suppressed")
