"""`ModelSpec`: everything needed to run a model, stored in its ONNX file.

The ONNX metadata (key `realtime_ssd.spec`, JSON) is the only contract between training, engines and
the program. No value in it is ever guessed or taken from the command line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from realtime_ssd.core.boxes import AnchorLayer, AnchorSpec
from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.graph_safety import check_external_data, check_graph, graph_inputs
from realtime_ssd.core.spec_decoder import SPEC, FieldError, parse_object

if TYPE_CHECKING:
    import onnx

__all__ = [
    "METADATA_KEY",
    "InputSpec",
    "ModelSpec",
    "Thresholds",
    "attach_spec",
    "read_spec",
    "spec_from_json",
    "spec_from_object",
    "spec_to_json",
]

METADATA_KEY = "realtime_ssd.spec"
"""Key of the specification in the metadata of an ONNX model."""

_FORMAT = 1
_JSON_THRESHOLDS = {
    "score": "score_threshold",
    "nms": "iou_threshold",
    "top_k": "pre_nms_top_k",
    "keep": "max_detections",
}
"""Keys of the thresholds in format 1, and the fields of `Thresholds` that they hold."""

Channels = Literal["RGB", "BGR"]
Resize = Literal["warp", "letterbox"]
Activation = Literal["softmax", "sigmoid", "none"]
Coding = Literal["xywh", "yxhw", "corners"]


@dataclass(frozen=True, slots=True)
class InputSpec:
    """Input tensor of a network: (value - mean) * scale for pixel values from 0 to 255.

    Attributes:
        width: Columns of the input tensor.
        height: Rows of the input tensor.
        channels: Order of the color planes.
        mean: Subtracted from each channel, in the order of `channels`.
        scale: Factor of each channel after the subtraction, in the order of `channels`.
        resize: "warp" stretches to the input size; "letterbox" keeps the aspect ratio and centers.
        fill: Pixel value (0 to 255) of the letterbox bars.
        name: Name of the input tensor.
    """

    width: int
    height: int
    channels: Channels = "RGB"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    resize: Resize = "warp"
    fill: int = 114
    name: str = "image"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Limits of post-processing; the defaults are those of the SSD paper.

    Attributes:
        score_threshold: Detections score higher than this.
        iou_threshold: A box is suppressed if its IoU with a better box of its class is higher.
        pre_nms_top_k: Best candidates of each class that enter NMS.
        max_detections: Best detections of an image that are kept.
        class_scores: Score threshold of each column instead of `score_threshold`; empty for none.
            Not stored in model files.
        agnostic_nms: Whether NMS treats all classes as one, so that a box suppresses boxes of
            other classes too, and the best `pre_nms_top_k` candidates of the image enter. Not
            stored in model files.
    """

    score_threshold: float = 0.5
    iou_threshold: float = 0.45
    pre_nms_top_k: int = 400
    max_detections: int = 200
    class_scores: tuple[float, ...] = ()
    agnostic_nms: bool = False

    @property
    def lowest_score(self) -> float:
        """The lowest score threshold of any column."""
        return min(self.class_scores, default=self.score_threshold)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Specification of one model.

    Attributes:
        name: Short name, for example "ssd300_vgg16".
        input: Pre-processing.
        boxes: Default boxes; may be empty if `coding` is "corners".
        labels: Name of every score column; the background is called "background".
        variances: Factors of the offsets of cx, cy, w, h.
        coding: Order of the four offsets: "xywh" (Caffe, PyTorch), "yxhw" (TensorFlow), or
            "corners" for a graph whose output is x1, y1, x2, y2 as fractions of the image.
        activation: Function from the score output to probabilities; "none" if the graph has it.
        background: Column of the background class, or None.
        clip_before_nms: Whether boxes are clipped to the image before NMS (torchvision) rather
            than after it (Caffe, TensorFlow).
        scores_output: Name of the N × P × C output.
        offsets_output: Name of the N × P × 4 output.
        thresholds: Default thresholds.
        description: One line for users: classes and origin of the model.

    Raises:
        ModelError: If the values contradict each other.
    """

    name: str
    input: InputSpec
    boxes: AnchorSpec
    labels: tuple[str, ...]
    variances: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)
    coding: Coding = "xywh"
    activation: Activation = "softmax"
    background: int | None = 0
    clip_before_nms: bool = False
    scores_output: str = "scores"
    offsets_output: str = "offsets"
    thresholds: Thresholds = field(default_factory=Thresholds)
    description: str = ""

    def __post_init__(self) -> None:
        problem = _first_problem(self)
        if problem:
            raise ModelError(f"the specification of model '{self.name}' is invalid: {problem}")

    @property
    def num_classes(self) -> int:
        """Number of score columns, background included."""
        return len(self.labels)

    @property
    def num_boxes(self) -> int:
        """Number of default boxes; 0 if the graph decodes the boxes and the model lists none."""
        return self.boxes.count

    def with_thresholds(self, **changes: float | tuple[float, ...] | None) -> ModelSpec:
        """Return the specification with some thresholds replaced.

        Args:
            changes: Fields of `Thresholds` and their new values; None keeps the current value. A
                new `score_threshold` alone is that of all classes.
        """
        values = {name: value for name, value in changes.items() if value is not None}
        if "score_threshold" in values:
            values.setdefault("class_scores", ())
        return replace(self, thresholds=replace(self.thresholds, **values))  # type: ignore[arg-type]


def _first_problem(spec: ModelSpec) -> str:
    """Return the first problem of a specification, or an empty string."""
    limits = spec.thresholds
    checks = [
        (spec.input.width > 0 and spec.input.height > 0, "the input size must be positive"),
        (spec.input.channels in ("RGB", "BGR"), "channels must be RGB or BGR"),
        (spec.input.resize in ("warp", "letterbox"), "resize must be warp or letterbox"),
        (spec.coding in ("xywh", "yxhw", "corners"), "coding must be xywh, yxhw or corners"),
        (spec.activation in ("softmax", "sigmoid", "none"), "unknown score activation"),
        (len(spec.labels) > 0, "it has no labels"),
        (
            spec.background is None or 0 <= spec.background < len(spec.labels),
            "the background column is outside the labels",
        ),
        (spec.coding == "corners" or spec.boxes.count > 0, "it has no default boxes"),
        (
            0 <= limits.score_threshold <= 1 and 0 <= limits.iou_threshold <= 1,
            "thresholds must be between 0 and 1",
        ),
        (
            len(limits.class_scores) in (0, len(spec.labels))
            and all(0 <= score <= 1 for score in limits.class_scores),
            "class_scores must hold a threshold between 0 and 1 for every label",
        ),
        (
            limits.pre_nms_top_k > 0 and limits.max_detections > 0,
            "pre_nms_top_k and max_detections must be positive",
        ),
    ]
    return next((problem for valid, problem in checks if not valid), "")


def spec_to_json(spec: ModelSpec) -> str:
    """Return a specification as JSON."""
    data = {"format": _FORMAT, **asdict(spec)}
    data["thresholds"] = {key: data["thresholds"][name] for key, name in _JSON_THRESHOLDS.items()}
    return json.dumps(data, separators=(",", ":"))


def spec_from_json(text: str) -> ModelSpec:
    """Read a specification from JSON.

    Raises:
        ModelError: If the text is not a specification, or has a newer format.
    """
    try:
        return spec_from_object(parse_object(text))
    except FieldError as error:
        raise _damaged(error) from error


def spec_from_object(data: Mapping[str, Any]) -> ModelSpec:
    """Read a specification from a JSON object that was parsed already.

    Raises:
        ModelError: If the object is not a specification, or has a newer format.
    """
    version = data.get("format")
    if type(version) is not int:
        raise ModelError("the model's specification is damaged; import the model again")
    if version != _FORMAT:
        shown = version if abs(version) < 10**9 else "with many digits"
        raise ModelError(
            f"the model's specification has format {shown}, this program reads format {_FORMAT}; "
            "update realtime-ssd or import the model again"
        )
    try:
        return _build(SPEC("", {key: value for key, value in data.items() if key != "format"}))
    except FieldError as error:
        raise _damaged(error) from error


def _damaged(error: FieldError) -> ModelError:
    return ModelError(f"the model's specification is damaged: {error}; import the model again")


def _build(data: dict[str, Any]) -> ModelSpec:
    """Return the specification with values that `SPEC` has checked."""
    boxes = data.pop("boxes")
    layers = tuple(AnchorLayer(**layer) for layer in boxes.pop("layers"))
    thresholds = {_JSON_THRESHOLDS[key]: value for key, value in data.pop("thresholds").items()}
    return ModelSpec(
        input=InputSpec(**data.pop("input")),
        boxes=AnchorSpec(layers=layers, **boxes),
        thresholds=Thresholds(**thresholds),
        **data,
    )


def attach_spec(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """Write a specification to the metadata of an ONNX model, replacing an existing one.

    Raises:
        ModelError: If the specification exceeds a limit and could not be read again.
    """
    text = spec_to_json(spec)
    spec_from_json(text)
    for entry in list(model.metadata_props):
        if entry.key == METADATA_KEY:
            model.metadata_props.remove(entry)
    model.metadata_props.add(key=METADATA_KEY, value=text)


def read_spec(path: str | Path, *, trust_model: bool = False) -> ModelSpec:
    """Read the specification of an ONNX file.

    Args:
        path: ONNX file.
        trust_model: Whether to accept a graph that `check_graph` refuses.

    Raises:
        ModelError: If the file is not an ONNX model, has no specification, or its graph is one
            that `check_graph` refuses.
    """
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except FileNotFoundError:
        raise ModelError(f"model file '{path}' does not exist") from None
    except Exception as error:
        raise ModelError(f"'{path}' is not a readable ONNX file: it may be damaged") from error
    if not model.graph.node:
        raise ModelError(f"'{path}' is not an ONNX model: its graph is empty")
    check_external_data(model, Path(path))
    text = next((item.value for item in model.metadata_props if item.key == METADATA_KEY), None)
    if text is None:
        raise ModelError(
            f"'{path}' has no model specification; "
            f"run 'realtime-ssd import {path} --output NEW.onnx' once and use NEW.onnx"
        )
    spec = spec_from_json(text)
    if not trust_model:
        heads = spec.num_boxes * (spec.num_classes + 4)
        check_graph(model, Path(path), _input_shapes(model, spec), heads)
    return spec


def _input_shapes(model: onnx.ModelProto, spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Return the shape of each input for one image; the specification has the open sizes."""
    sizes = (1, 3, spec.input.height, spec.input.width)
    shapes = {}
    for item in graph_inputs(model.graph):
        declared = item.type.tensor_type.shape.dim
        expected = sizes if len(declared) == len(sizes) else (1,) * len(declared)
        shapes[item.name] = tuple(
            size.dim_value or known for size, known in zip(declared, expected, strict=True)
        )
    return shapes
