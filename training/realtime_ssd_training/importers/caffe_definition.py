"""Reader of Caffe network definitions (.prototxt), the text form of protocol buffers.

Source: field names, types, defaults and enum values of BVLC Caffe and of weiliu89's SSD branch.
Fields that the importer does not use are skipped.
"""

from __future__ import annotations

from google.protobuf import text_format

from realtime_ssd.core.errors import ModelError
from realtime_ssd_training.weights.caffe_schema import (
    FieldSpec,
    Message,
    build_message_class,
    one_of,
    optional,
    repeated,
)

__all__ = ["layer_error", "parse_definition"]


def _both_axes(prefix: str, field: str) -> dict[str, FieldSpec]:
    """Declare a size: one number for both axes, one for each, or a field for each."""
    return {
        field: repeated("uint32"),
        f"{prefix}_h": optional("uint32"),
        f"{prefix}_w": optional("uint32"),
    }


# Real numbers are double, so that 0.1 is read as written; Caffe itself has float.
_WINDOW = {
    **_both_axes("kernel", "kernel_size"),
    **_both_axes("stride", "stride"),
    **_both_axes("pad", "pad"),
}
_PARAMETERS: dict[str, dict[str, FieldSpec]] = {
    "batch_norm_param": {"eps": optional("double", "1e-5")},
    "concat_param": {"axis": optional("int32"), "concat_dim": optional("uint32", "1")},
    "convolution_param": {
        **_WINDOW,
        **_both_axes("dilation", "dilation"),
        "num_output": optional("uint32"),
        "bias_term": optional("bool", "true"),
        "group": optional("uint32", "1"),
    },
    "detection_output_param": {
        "num_classes": optional("uint32"),
        "share_location": optional("bool", "true"),
        "background_label_id": optional("int32"),
        "nms_param": optional("NonMaximumSuppression"),
        "code_type": one_of("UNKNOWN", "CORNER", "CENTER_SIZE", "CORNER_SIZE", default="CORNER"),
        "variance_encoded_in_target": optional("bool"),
        "keep_top_k": optional("int32", "-1"),
        "confidence_threshold": optional("double"),
    },
    "eltwise_param": {
        "operation": one_of("PROD", "SUM", "MAX", default="SUM"),
        "coeff": repeated("double"),
    },
    "flatten_param": {"axis": optional("int32", "1")},
    "input_param": {"shape": repeated("Shape")},
    "norm_param": {
        "across_spatial": optional("bool", "true"),
        "channel_shared": optional("bool", "true"),
        "eps": optional("double", "1e-10"),
    },
    "permute_param": {"order": repeated("uint32")},
    "pooling_param": {
        **_WINDOW,
        "pool": one_of("MAX", "AVE", "STOCHASTIC", default="MAX"),
        "global_pooling": optional("bool"),
    },
    "prior_box_param": {
        "min_size": repeated("double"),
        "max_size": repeated("double"),
        "aspect_ratio": repeated("double"),
        "flip": optional("bool", "true"),
        "clip": optional("bool"),
        "variance": repeated("double"),
        "img_size": optional("uint32"),
        "img_h": optional("uint32"),
        "img_w": optional("uint32"),
        "step": optional("double"),
        "step_h": optional("double"),
        "step_w": optional("double"),
        "offset": optional("double", "0.5"),
    },
    "relu_param": {"negative_slope": optional("double")},
    "reshape_param": {"shape": optional("Shape")},
    "scale_param": {
        "axis": optional("int32", "1"),
        "num_axes": optional("int32", "1"),
        "bias_term": optional("bool"),
    },
    "slice_param": {
        "axis": optional("int32", "1"),
        "slice_dim": optional("uint32", "1"),
        "slice_point": repeated("uint32"),
    },
}
_NetDefinition = build_message_class(
    "NetDefinition",
    {
        "NetDefinition": {
            "name": optional("string"),
            "input": repeated("string"),
            "input_shape": repeated("Shape"),
            "input_dim": repeated("int64"),
            "layer": repeated("Layer"),
        },
        "Layer": {
            "name": optional("string"),
            "type": optional("string"),
            "bottom": repeated("string"),
            "top": repeated("string"),
            "include": repeated("Rule"),
            **{name: optional(name) for name in _PARAMETERS},
        },
        "Rule": {"phase": one_of("TRAIN", "TEST", default="TRAIN")},
        "Shape": {"dim": repeated("int64")},
        "NonMaximumSuppression": {
            "nms_threshold": optional("double"),
            "top_k": optional("int32"),
        },
        **_PARAMETERS,
    },
)


def parse_definition(text: str) -> Message:
    """Parse a network definition.

    Raises:
        ModelError: If the text is not in the text form of protocol buffers, or a field has a value
            of another type; the message contains the line.

    Example:
        >>> parse_definition('layer { name: "pool1" pooling_param { pad: 1 } }').layer[0].name
        'pool1'
    """
    definition = _NetDefinition()
    try:
        text_format.Parse(text, definition, allow_unknown_field=True)
    except text_format.ParseError as error:
        line = error.GetLine()
        reason = str(error).partition(" : ")[2] if line else str(error)
        where = f"line {line} of the" if line else "the"
        raise ModelError(
            f"{where} network definition cannot be parsed ({reason.rstrip('.')}); use the complete "
            ".prototxt file of the model"
        ) from error
    except RecursionError:
        raise ModelError("the network definition is nested too deeply") from None
    return definition


def layer_error(layer: Message, problem: str) -> ModelError:
    """Create the error for a layer that cannot be converted."""
    return ModelError(f"layer '{layer.name}' ({layer.type}) {problem}")
