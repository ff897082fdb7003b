"""Import of Caffe's SSDs: network definition (prototxt) and weights (caffemodel).

Families are the two published ones: VGG16 of weiliu89 (BGR minus 104, 117, 123) and MobileNet of
chuanqi305 (BGR minus 127.5, times 0.007843). Boxes, variances and NMS come from the definition.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.spec import Activation, InputSpec, ModelSpec, Thresholds
from realtime_ssd_training.importers import caffe_boxes, caffe_text, labels
from realtime_ssd_training.importers.caffe_layers import CONVERTERS, flatten
from realtime_ssd_training.importers.caffe_net import Blob, Layer, Net
from realtime_ssd_training.importers.caffe_text import Message
from realtime_ssd_training.importers.caffe_weights import read_weights
from realtime_ssd_training.importers.graph import Model, extract, rename
from realtime_ssd_training.importers.options import Imported, ImportOptions
from realtime_ssd_training.importers.overrides import apply
from realtime_ssd_training.importers.saving import save

__all__ = ["families", "import_model"]

# Mean and scale (BGR) of each family.
_INPUTS = {
    "caffe-vgg": ((104.0, 117.0, 123.0), 1.0),
    "caffe-mobilenet": ((127.5, 127.5, 127.5), 0.007843),
}
_LABELS = {21: labels.VOC_21, 81: labels.COCO_80}
LOWEST_DISPLAY_SCORE = 0.1
END = "DetectionOutput"


def import_model(path: Path, output: Path, options: ImportOptions) -> Imported:
    """Import a caffemodel with its prototxt; see `realtime_ssd_training.importers.import_model`."""
    definition = _read_definition(path, options)
    layers = _layers(definition)
    net = Net(read_weights(path))
    image = _start(net, definition, layers)
    end = _convert(net, layers)
    _check_all_used(net, path)
    scores, offsets, priors = _heads(net, end)
    family = options.family or _recognise(layers)
    spec = apply(_describe(family, definition, end, image, scores, priors), options)
    model = net.model([image], [scores, offsets])
    rename(model, image.name, spec.input.name)
    rename(model, scores.name, spec.scores_output)
    rename(model, offsets.name, spec.offsets_output)
    dynamic = save(_pruned(model, spec, scores, offsets), spec, output)
    return Imported(spec, output, family, dynamic)


def families() -> tuple[str, ...]:
    """List the families a Caffe model may be said to be of."""
    return tuple(_INPUTS)


def _read_definition(path: Path, options: ImportOptions) -> Message:
    definition = options.definition
    if definition is None:
        raise UsageError(
            f"'{path}' holds weights only; give its network definition (.prototxt) as well"
        )
    try:
        return caffe_text.parse(definition.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the definition '{definition}' cannot be read: {error}") from error


def _layers(definition: Message) -> list[Layer]:
    """List the layers that are there when the network is used."""
    layers = [
        Layer(block.text("name"), block.text("type"), block)
        for block in definition.messages("layer")
        if "TRAIN" not in [rule.text("phase") for rule in block.messages("include")]
    ]
    if not any(layer.kind == END for layer in layers):
        kinds = sorted({layer.kind for layer in layers})
        raise ModelError(
            f"the definition has no {END} layer, only {', '.join(kinds) or 'no layers at all'}; "
            "give the SSD's deploy.prototxt"
        )
    return layers


def _recognise(layers: list[Layer]) -> str:
    """Name the family: only VGG normalises, only MobileNet has grouped convolutions."""
    if any(layer.kind == "Normalize" for layer in layers):
        return "caffe-vgg"
    if any(layer.options("convolution_param").integer("group", 1) > 1 for layer in layers):
        return "caffe-mobilenet"
    return ""


def _start(net: Net, definition: Message, layers: list[Layer]) -> Blob:
    """Find the network's input and its size."""
    name = definition.text("input")
    sizes = definition.message("input_shape").numbers("dim") or definition.numbers("input_dim")
    for layer in layers:
        if layer.kind == "Input":
            name = layer.settings.text("top")
            sizes = layer.options("input_param").message("shape").numbers("dim")
    if len(sizes) != 4 or int(sizes[1]) != 3:
        raise ModelError(f"the definition's input has sizes {sizes}; 1×3×height×width is needed")
    image = Blob("image", (1, 3, int(sizes[2]), int(sizes[3])))
    net.blobs[name] = image
    return image


def _convert(net: Net, layers: list[Layer]) -> Layer:
    """Write every layer up to the last as nodes; give the last, which is the post-processing."""
    for layer in layers:
        if layer.kind == END:
            return layer
        if layer.kind == "Input":
            continue
        if layer.kind not in CONVERTERS:
            raise layer.refuse(
                f"is of a type that is not supported ({', '.join(sorted(CONVERTERS))} are); give "
                "the deploy.prototxt of an SSD"
            )
        bottoms = [_bottom(net, layer, name) for name in layer.settings.texts("bottom")]
        result = CONVERTERS[layer.kind](net, layer, bottoms)
        for top in layer.settings.texts("top"):
            net.blobs[top] = result
    raise ModelError(f"the definition has no {END} layer")


def _bottom(net: Net, layer: Layer, name: str) -> Blob:
    if name not in net.blobs:
        raise layer.refuse(f"takes '{name}', which no layer before it gives")
    return net.blobs[name]


def _check_all_used(net: Net, path: Path) -> None:
    """Refuse weights that the definition does not use: results would be wrong without a word."""
    extra = [name for name in net.weights if name not in net.used]
    if extra:
        raise ModelError(
            f"'{path}' has weights for {', '.join(extra[:5])}{' and more' * (len(extra) > 5)}, "
            "which the definition does not use; give the definition that belongs to the weights"
        )


def _heads(net: Net, end: Layer) -> tuple[Blob, Blob, Blob]:
    """Give scores (1 × P × C), offsets (1 × P × 4) and default boxes."""
    names = end.settings.texts("bottom")
    if len(names) < 3:
        raise end.refuse(f"takes {names}; offsets, scores and default boxes are needed")
    offsets, scores, priors = (_bottom(net, end, name) for name in names[:3])
    classes = end.options("detection_output_param").integer("num_classes", 0)
    return _rows(net, end, scores, classes), _rows(net, end, offsets, 4), priors


def _rows(net: Net, end: Layer, blob: Blob, columns: int) -> Blob:
    """Lay a head out as 1 × P × columns."""
    flat = flatten(net, Layer("heads", "Flatten", Message()), [blob])
    if not columns or flat.shape[1] % columns:
        raise end.refuse(f"has {flat.shape[1]} values, which {columns} columns do not divide")
    shape = Message({"dim": [0, -1, columns]})
    block = Message({"reshape_param": [Message({"shape": [shape]})]})
    return CONVERTERS["Reshape"](net, Layer("heads", "Reshape", block), [flat])


def _describe(
    family: str, definition: Message, end: Layer, image: Blob, scores: Blob, priors: Blob
) -> ModelSpec:
    """Read the contract out of the definition."""
    if family not in _INPUTS:
        raise UsageError(
            f"the family {repr(family) if family else 'of this Caffe model'} is unknown; name it "
            f"with --family ({', '.join(_INPUTS)}), which decides mean and scale of the input"
        )
    options = end.options("detection_output_param")
    coding = options.text("code_type", "CORNER")
    if coding != "CENTER_SIZE" or not options.flag("share_location", True):
        raise end.refuse(f"codes boxes as {coding}; only shared CENTER_SIZE boxes are supported")
    if not priors.priors:
        raise end.refuse("takes default boxes that no PriorBox layer gives")
    encoded = options.flag("variance_encoded_in_target", False)
    mean, scale = _INPUTS[family]
    height, width = image.shape[2:]
    classes = scores.shape[2]
    names = _LABELS.get(classes) or labels.numbered(classes)
    return ModelSpec(
        name=definition.text("name") or family,
        input=InputSpec(width, height, "BGR", mean, (scale,) * 3),
        boxes=caffe_boxes.recipe(priors.priors),
        labels=names,
        variances=(1.0,) * 4 if encoded else caffe_boxes.variances(priors.priors),
        activation=cast(Activation, scores.activation),
        background=options.integer("background_label_id", 0),
        thresholds=_thresholds(options),
        description=f"SSD{width} converted from Caffe ({family}, {classes} score columns)",
    )


def _thresholds(options: Message) -> Thresholds:
    """Read NMS and counts; a score threshold meant for evaluation is not one for showing."""
    usual = Thresholds()
    nms = options.message("nms_param")
    score = options.number("confidence_threshold", 0)
    given = replace(
        usual,
        score_threshold=score if score >= LOWEST_DISPLAY_SCORE else usual.score_threshold,
        iou_threshold=nms.number("nms_threshold", usual.iou_threshold),
    )
    counts = {
        "pre_nms_top_k": nms.integer("top_k", usual.pre_nms_top_k),
        "max_detections": options.integer("keep_top_k", usual.max_detections),
    }
    return replace(given, **{key: value for key, value in counts.items() if value > 0})


def _pruned(model: Model, spec: ModelSpec, scores: Blob, offsets: Blob) -> Model:
    """Drop nodes that only fed other outputs."""
    return extract(
        model, {}, {spec.scores_output: scores.shape, spec.offsets_output: offsets.shape}
    )
