"""Network definitions in the text form of protocol buffers."""

from __future__ import annotations

import pytest
from realtime_ssd_training.importers.caffe_definition import parse_definition
from realtime_ssd_training.weights.caffe_schema import enum_name

from realtime_ssd.core.errors import ModelError
from tests.training.importers.caffe_files import vgg_definition


def test_every_notation_is_read() -> None:
    definition = parse_definition(
        """
        name: "two " 'parts' # comment
        input: 'it\\'s', input: "b";
        input_shape < dim: 1 dim: 0x10 >
        input_shape: { dim: [ -1, 300 ] }
        layer {
          name: "a" unknown: [true, FALSE] unknown { deeper < x: -inf > y: "}" }
          include: [{ phase: TEST }, { phase: 0 }]
          prior_box_param { min_size: 1 min_size: -2.5e-1 variance: 0.1 offset: .5f clip: t }
        }
        layer { name: "b" pooling_param { pool: 1 } eltwise_param { operation: MAX } }
        """
    )
    assert definition.name == "two parts"
    assert list(definition.input) == ["it's", "b"]
    assert [list(shape.dim) for shape in definition.input_shape] == [[1, 16], [-1, 300]]
    first, second = definition.layer
    assert [enum_name(rule, "phase") for rule in first.include] == ["TEST", "TRAIN"]
    prior_box = first.prior_box_param
    assert list(prior_box.min_size) == [1.0, -0.25]
    assert list(prior_box.variance) == [0.1]  # exactly as written, not rounded to float32
    assert (prior_box.offset, prior_box.clip, prior_box.flip) == (0.5, True, True)
    assert enum_name(second.pooling_param, "pool") == "AVE"
    assert enum_name(second.eltwise_param, "operation") == "MAX"


def test_absent_fields_have_the_defaults_of_caffe() -> None:
    (layer,) = parse_definition('layer { name: "a" }').layer
    assert (layer.convolution_param.bias_term, layer.convolution_param.group) == (True, 1)
    assert layer.batch_norm_param.eps == 1e-5
    norm = layer.norm_param
    assert (norm.across_spatial, norm.channel_shared, norm.eps) == (True, True, 1e-10)
    prior_box = layer.prior_box_param
    assert (prior_box.flip, prior_box.clip, prior_box.offset) == (True, False, 0.5)
    scale = layer.scale_param
    assert (scale.axis, scale.num_axes, scale.bias_term) == (1, 1, False)
    end = layer.detection_output_param
    assert (enum_name(end, "code_type"), end.share_location) == ("CORNER", True)
    assert (end.keep_top_k, end.background_label_id) == (-1, 0)
    assert enum_name(layer.pooling_param, "pool") == "MAX"
    assert enum_name(layer.eltwise_param, "operation") == "SUM"
    assert (layer.flatten_param.axis, layer.concat_param.concat_dim) == (1, 1)


GARBAGE = {
    "a symbol": ('name: "a"\n@', "line 2 .*@"),
    "an operator": ("layer {\n\n pooling_param { pool = 1 } }", "line 3 .*="),
    "a missing value": ("layer { name: }", "line 1"),
    "a missing brace": ('layer { name: "a"', 'line 1 .*Expected "}"'),
    "a missing brace of an unknown block": ("layer { loss_param { x: 1", "line 1"),
    "a brace too many": ('layer { name: "a" }\n}', "line 2"),
    "a symbol in an unknown field": ("layer { loss_weight: @ }", "@"),
    "an open string": ('layer { name: "a }', "line 1"),
    "an open string in an unknown field": ('layer { file: "a }', '"a }'),
    "a number as a name": ("layer { name: 3 }", "line 1 .*'3'"),
    "text as a number": ('layer { pooling_param { pad: "1" } }', "line 1"),
    "a fraction as a size": ("layer { pooling_param { pad: 1.5 } }", "line 1 .*1.5"),
    "a negative size": ("layer { pooling_param { pad: -1 } }", "line 1 .*-1"),
    "an unknown boolean": ("layer { scale_param { bias_term: FALSE } }", 'line 1 .*"true"'),
    "an unknown enum value": ("layer { pooling_param { pool: MEAN } }", "line 1 .*MEAN"),
    "an unknown enum number": ("layer { include { phase: 7 } }", "line 1 .*7"),
    "a block as a value": ("layer { name { } }", "line 1"),
    "a value as a block": ("layer: 3", "line 1"),
    "two values of one field": ('layer { name: "a"\nname: "b" }', 'line 2 .*multiple "name"'),
    "bytes that are not UTF-8": ('layer { name: "\\377" }', "line 1"),
    "prose": ("This is not a definition.", "line 1"),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_refused_with_its_line(kind: str) -> None:
    text, expected = GARBAGE[kind]
    with pytest.raises(ModelError, match="network definition cannot be parsed") as caught:
        parse_definition(text)
    caught.match(expected)
    assert "\n" not in str(caught.value)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(ModelError, match="nested too deeply"):
        parse_definition("a {" * 20_000)


def test_a_definition_truncated_inside_a_layer_is_refused() -> None:
    lines = vgg_definition(300, 21).splitlines()
    for count in range(4, 200):
        text = "\n".join(lines[:count])
        if text.count("{") == text.count("}"):
            assert parse_definition(text).layer
            continue
        with pytest.raises(ModelError, match="use the complete"):
            parse_definition(text)
