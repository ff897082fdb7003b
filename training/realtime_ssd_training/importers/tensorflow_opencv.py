"""OpenCV's face detector, a frozen graph whose default boxes are in a description (.pbtxt).

The description is a graph with the layers PriorBox and DetectionOutput of Caffe. Source of the
pre-processing: OpenCV's documentation of this model, BGR minus (104, 177, 123).
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.spec import InputSpec, Thresholds
from realtime_ssd_training.importers.caffe_anchors import (
    common_variances,
    join_prior_boxes,
    read_prior_box,
)
from realtime_ssd_training.importers.import_options import ImportOptions, ImportResult
from realtime_ssd_training.importers.nhwc_graph import Value
from realtime_ssd_training.importers.tensorflow_file import (
    Graph,
    Node,
    before_reshape,
    data_inputs,
    read_text_graph,
    to_array,
)
from realtime_ssd_training.importers.tensorflow_graph import GraphConverter
from realtime_ssd_training.importers.tensorflow_heads import Heads, write_heads
from realtime_ssd_training.importers.tensorflow_layers import CONVERTERS

__all__ = ["FAMILY", "import_model", "matches"]

FAMILY = "opencv-face"
_OFFSETS, _SCORES, _IMAGE = "mbox_loc", "mbox_conf_flatten", "data"
_INPUT = InputSpec(300, 300, "BGR", mean=(104.0, 177.0, 123.0))
_LOWEST_DISPLAY_SCORE = 0.5


def matches(graph: Graph) -> bool:
    """Return whether a graph is OpenCV's face detector or one that was made like it."""
    return {_OFFSETS, _SCORES, _IMAGE} <= graph.nodes.keys()


def import_model(graph: Graph, path: Path, output: Path, options: ImportOptions) -> ImportResult:
    """Import a graph with its description; see `realtime_ssd_training.importers`."""
    description = read_text_graph(options.prototxt or _description_beside(path))
    converter = GraphConverter(graph=graph, converters=CONVERTERS)
    pixels = Value((1, _INPUT.height, _INPUT.width, 3), "image", channels_first=True)
    converter.values[_IMAGE] = [pixels]
    logits = _logits(graph)
    priors = [node for node in description.nodes.values() if node.op == "PriorBox"]
    end = next((n for n in description.nodes.values() if n.op == "DetectionOutput"), None)
    if not priors or end is None:
        raise UsageError(
            "the description has no PriorBox and DetectionOutput nodes; use the .pbtxt that "
            "OpenCV publishes with this model"
        )
    boxes = [_prior_box(node, converter) for node in priors]
    values = {
        "score_threshold": float(end.attr["confidence_threshold"].f),
        "iou_threshold": round(float(end.attr["nms_threshold"].f), 6),
        "pre_nms_top_k": int(end.attr["top_k"].i),
        "max_detections": int(end.attr["keep_top_k"].i),
    }
    if values["score_threshold"] < _LOWEST_DISPLAY_SCORE:
        del values["score_threshold"]
    heads = Heads(
        _OFFSETS,
        logits,
        "softmax",
        join_prior_boxes(boxes),
        common_variances(boxes),
        int(end.attr["background_label_id"].i),
        Thresholds(**{key: value for key, value in values.items() if value}),  # type: ignore[arg-type]
        "xywh",
        FAMILY,
    )
    return write_heads(converter, pixels, heads, _INPUT, path, output, options)


def _description_beside(path: Path) -> Path:
    found = sorted(path.parent.glob("*.pbtxt"))
    if len(found) != 1:
        raise UsageError(
            f"'{path}' has no default boxes; set `prototxt` to the description (.pbtxt) that "
            "OpenCV publishes with it"
        )
    return found[0]


def _logits(graph: Graph) -> str:
    """Return the input of the softmax."""
    for node in graph.ancestors([_SCORES]):
        if node.op == "Softmax":
            return before_reshape(graph, data_inputs(node)[0])
    raise ModelError(f"the TensorFlow graph has no softmax before '{_SCORES}'")


def _prior_box(node: Node, converter: GraphConverter) -> Any:
    """Read a PriorBox node, whose numbers are single values or lists."""
    names = ("min_size", "max_size", "aspect_ratio", "variance")
    lists = {name: _numbers(node, name) for name in names}
    single = {name: float(node.attr[name].f) for name in ("step", "step_h", "step_w")}
    flags = {name: bool(node.attr[name].b) for name in ("flip", "clip")}
    offset = float(node.attr["offset"].f) if "offset" in node.attr else 0.5
    sizes = dict.fromkeys(("img_h", "img_w", "img_size"), 0)
    parameters = SimpleNamespace(**lists, **single, **flags, **sizes, offset=offset)
    rows, columns = converter.convert(data_inputs(node)[0]).shape[1:3]
    return read_prior_box(parameters, (rows, columns), (_INPUT.height, _INPUT.width))


def _numbers(node: Node, name: str) -> list[float]:
    if name not in node.attr:
        return []
    value = node.attr[name]
    kind = value.WhichOneof("value")
    if kind == "tensor":
        return [round(float(item), 7) for item in to_array(value.tensor).reshape(-1)]
    return [float(getattr(value, kind))]
