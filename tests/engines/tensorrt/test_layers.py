"""Layer descriptions of three TensorRT generations, as a table and as JSON."""

from __future__ import annotations

import json

import pytest
from realtime_ssd_engines.tensorrt.layers import (
    Layer,
    add_times,
    format_table,
    parse_layers,
    to_json,
)

CONV = {
    "Name": "conv1 + relu1",
    "LayerType": "CaskConvolution",
    "Inputs": [
        {"Name": "image", "Dimensions": [1, 3, 300, 300], "Format/Datatype": "Half row-major"}
    ],
    "Outputs": [{"Name": "x", "Dimensions": [1, 32, 150, 150], "Format/Datatype": "Half NHWC8"}],
    "TacticName": "sm90_xmma_fprop",
    "TacticValue": "0x01",
}
OLD = {"Layers": [CONV], "Bindings": ["image", "scores"]}
NEW = {
    "Layers": [
        {
            **CONV,
            "Inputs": [{"Name": "image", "Dimensions": [1, 3, 300, 300], "Datatype": "Half"}],
            "Outputs": [{"Name": "x", "Dimensions": [1, 32, 150, 150], "Datatype": "Half"}],
            "TacticName": "",
        }
    ],
    "I/O Tensors": ["image", "scores"],
}


def test_layers_of_older_and_newer_versions_are_parsed() -> None:
    (old,), (new,) = parse_layers(json.dumps(OLD)), parse_layers(json.dumps(NEW))
    assert (old.name, old.kind, old.tactic) == (
        "conv1 + relu1",
        "CaskConvolution",
        "sm90_xmma_fprop",
    )
    assert old.inputs == ("Half row-major 1x3x300x300",)
    assert new.outputs == ("Half 1x32x150x150",)
    assert new.tactic == "0x01"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('{"Layers": ["conv1", "conv2"]}', ["conv1", "conv2"]),
        ('{"Layers": []}', []),
        ("{}", []),
        ("", []),
        ("[1]", []),
        ("engine of 3 layers", []),
        ('{"Layers": [{"Name": "a", "Inputs": ["x"], "Outputs": null}]}', ["a"]),
    ],
)
def test_incomplete_descriptions_are_parsed(text: str, names: list[str]) -> None:
    assert [layer.name for layer in parse_layers(text)] == names


def test_times_are_added_by_name_and_unmatched_times_are_kept() -> None:
    layers = add_times([Layer("a"), Layer("b")], {"b": 0.5, "reformat": 0.25})
    assert [(layer.name, layer.milliseconds) for layer in layers] == [
        ("a", None),
        ("b", 0.5),
        ("reformat", 0.25),
    ]


def test_layers_are_formatted_as_table_and_json() -> None:
    layers = add_times(parse_layers(json.dumps(OLD)), {"conv1 + relu1": 0.3, "x" * 200: 0.1})
    lines = format_table(layers).splitlines()
    assert lines[1].split()[:4] == ["0.3000", "75.0", "%", "CaskConvolution"]
    assert "Half NHWC8 1x32x150x150" in lines[1]
    assert lines[2].endswith("x" * 59 + "…")
    assert lines[-1] == "  0.4000  2 layers"
    assert json.loads(to_json(layers))[0]["milliseconds"] == 0.3
    assert format_table([]).splitlines()[-1] == "0 layers"
