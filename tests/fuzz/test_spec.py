"""Hostile specifications of models: each is refused in one sentence, quickly."""

from __future__ import annotations

import base64
import json
import random
import struct
import time
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import pytest

from realtime_ssd.core.boxes import AnchorSpec
from realtime_ssd.core.errors import ModelError, for_command_line
from realtime_ssd.core.spec import METADATA_KEY, attach_spec, read_spec, spec_from_json
from tests.core.test_spec import SPEC, TEXT
from tests.fuzz.mutations import mutate_bytes, mutate_json

LAYER = "boxes.layers.0"
NAN = float("nan")


def with_field(path: str, value: Any) -> str:
    """Return `TEXT` with the value at a dotted path replaced."""
    data = json.loads(TEXT)
    target, keys = data, path.split(".")
    for key in keys[:-1]:
        target = target[int(key) if key.isdigit() else key]
    target[int(keys[-1]) if keys[-1].isdigit() else keys[-1]] = value
    return json.dumps(data)


def encoded(*numbers: float, rest: bytes = b"") -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers) + rest).decode()


def refusal(text: str) -> str:
    """Return the message with which a specification is refused: one short printable line."""
    with pytest.raises(ModelError) as caught:
        spec_from_json(text)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 400
    assert for_command_line(message) == message
    return message


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (f"{LAYER}.rows", 3.5, "'boxes.layers[0].rows' must be an integer from 1 to 4096, not 3.5"),
        (f"{LAYER}.rows", True, "'boxes.layers[0].rows' must be an integer from 1 to 4096, not tr"),
        (f"{LAYER}.rows", 10**400, "from 1 to 4096, not an integer with many digits"),
        (f"{LAYER}.columns", 0, "'boxes.layers[0].columns' must be an integer from 1 to 4096"),
        (f"{LAYER}.step_y", "0.5", "'boxes.layers[0].step_y' must be a number from 1e-06 to 100, "),
        (f"{LAYER}.step_x", 0, "'boxes.layers[0].step_x' must be a number from 1e-06 to 100, not"),
        (f"{LAYER}.step_x", -0.1, "'boxes.layers[0].step_x' must be a number from 1e-06 to 100"),
        (f"{LAYER}.offset", "0.5", "'boxes.layers[0].offset' must be a number from -100 to 100"),
        (f"{LAYER}.offset", NAN, "'boxes.layers[0].offset' must be a number from -100 to 100, not"),
        (f"{LAYER}.sizes", [], "'boxes.layers[0].sizes' must be an array of 1 to 256 items, not"),
        (f"{LAYER}.sizes", [[1, 2, 3]], "'boxes.layers[0].sizes[0]' must be an array of 2 items"),
        (f"{LAYER}.sizes", [[1, "2"]], "'boxes.layers[0].sizes[0][1]' must be a number from 1e-06"),
        (f"{LAYER}.sizes", [[0.5, 0.5]] * 257, "must be an array of 1 to 256 items, not an array"),
        ("boxes.layers", [None], "'boxes.layers[0]' must be an object, not null"),
        ("boxes.layers", [{}] * 65, "'boxes.layers' must be an array of 0 to 64 items"),
        ("boxes", None, "'boxes' must be an object, not null"),
        ("boxes.clip", 1, "'boxes.clip' must be true or false, not 1"),
        ("boxes.rounding", "0.5", "'boxes.rounding' must be 0 or a number from 1e-06 to 1"),
        ("boxes.rounding", 1e-300, "'boxes.rounding' must be 0 or a number from 1e-06 to 1"),
        ("boxes.explicit", "?", "'boxes.explicit' must be base64 text"),
        ("boxes.explicit", encoded(0, 0, 1, 1, rest=b"1"), "must contain 16 bytes for each of at"),
        ("boxes.explicit", encoded(0, 0, 1, NAN), "'boxes.explicit' must contain finite boxes"),
        ("boxes.explicit", encoded(0, 0, 1, -1), "'boxes.explicit' must contain finite boxes"),
        ("labels", {"0": "car", "1": "bus"}, "'labels' must be an array of 1 to 65536 items, not"),
        ("labels", ["car", 1], "'labels[1]' must be text of 0 to 256 characters, not 1"),
        ("labels", ["car", ["a"]], "'labels[1]' must be text of 0 to 256 characters, not an arr"),
        ("labels", ["car", "x" * 257], "'labels[1]' must be text of 0 to 256 characters, not tex"),
        ("labels", ["car", "a\x1b[31m"], "'labels[1]' must be text without control characters"),
        ("labels", ["car", "\ud800"], "'labels[1]' must be text without control characters"),
        ("labels", ["a"] * 65537, "'labels' must be an array of 1 to 65536 items"),
        ("input.width", 8193, "'input.width' must be an integer from 1 to 8192, not 8193"),
        ("input.height", 0, "'input.height' must be an integer from 1 to 8192, not 0"),
        ("input.scale", [0, 1, 1], "'input.scale[0]' must be a number from 1e-09 to 1e+06, not 0"),
        ("input.scale", [1, -1, 1], "'input.scale[1]' must be a number from 1e-09 to 1e+06"),
        ("input.mean", "abc", "'input.mean' must be an array of 3 items"),
        ("input.channels", ["RGB"], "'input.channels' must be RGB or BGR, not an array of 1"),
        ("input.fill", 256, "'input.fill' must be an integer from 0 to 255, not 256"),
        ("input.name", "", "'input.name' must be text of 1 to 256 characters"),
        ("background", False, "'background' must be an integer from 0 to 65535, not false"),
        ("variances", [0.1, 0.1, 0.2, 0], "'variances[3]' must be a number from 1e-06 to 100"),
        ("thresholds.top_k", 1.5, "'thresholds.top_k' must be an integer from 1 to 1000000"),
        ("thresholds.score", "1", "'thresholds.score' must be a number from 0 to 1, not"),
        ("coding", {}, "'coding' must be xywh, yxhw or corners, not an object"),
        ("clip_before_nms", "no", "'clip_before_nms' must be true or false"),
        ("description", "x" * 5000, "'description' must be text of 0 to 4096 characters"),
        ("new\n`x`", 1, r"'new\n\u0060x\u0060' is unknown"),
    ],
)
def test_faults_are_named(path: str, value: Any, problem: str) -> None:
    message = refusal(with_field(path, value))
    assert "specification is damaged: field '" in message
    assert problem in message


def test_totals_are_limited() -> None:
    layer = {**json.loads(TEXT)["boxes"]["layers"][0], "rows": 4096, "columns": 4096}
    message = refusal(with_field("boxes.layers", [layer]))
    assert "'boxes' describes 16777216 default boxes, more than 1000000" in message
    data = json.loads(TEXT)
    data["input"].update(width=8192, height=8192)
    assert "'input' describes an input of 8192x8192, more than" in refusal(json.dumps(data))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 100_000, "its text is nested too deeply"),
        ('{"a":' * 100_000, "its text is nested too deeply"),
        (with_field("name", None).replace("null", "[" * 900 + "]" * 900), "not an array of 1"),
        ('{"format":1,"description":"' + "x" * 10**7 + '"}', "at most 4194304 are read"),
        ("[" + "0," * 2_000_000 + "0]", "it must be a JSON object, not an array of 2000001"),
        ('{"format":' + "9" * 5000 + "}", "its text is not JSON"),
        ('{"format":' + "9" * 4000 + "}", "has format with many digits"),
        ('{"format":true}', "the model's specification is damaged"),
    ],
    ids=["arrays", "objects", "nested value", "10 MB", "long array", "digits", "format", "boolean"],
)
def test_large_texts_are_refused_quickly(text: str, problem: str) -> None:
    start = time.process_time()
    assert problem in refusal(text)
    assert time.process_time() - start < 1


def test_mutated_specifications() -> None:
    """600 mutations of the JSON value and of its bytes: no unexpected error."""
    counts: Counter[str] = Counter()
    explicit = json.loads(TEXT)
    explicit["boxes"] = {"layers": [], "explicit": encoded(0.5, 0.5, 1, 1, 0.2, 0.2, 0.1, 0.1)}
    for seed in range(600):
        chance = random.Random(seed)
        data = explicit if seed % 3 == 0 else json.loads(TEXT)
        if seed % 2:
            text = json.dumps(mutate_json(data, chance))
        else:
            text = mutate_bytes(json.dumps(data).encode(), chance).decode(errors="replace")
        try:
            spec = spec_from_json(text)
        except ModelError as error:
            counts["sentence" if str(error).isprintable() else "unprintable"] += 1
        else:
            assert spec.boxes.boxes().shape == (spec.num_boxes, 4), f"seed {seed}"
            counts["success"] += 1
    assert not counts["unprintable"]
    assert counts["sentence"] > 300
    assert counts["success"] > 20


def test_mutated_onnx_files(tiny: Path, tmp_path: Path) -> None:
    content, path = tiny.read_bytes(), tmp_path / "m.onnx"
    start = content.index(METADATA_KEY.encode())
    messages = []
    for seed in range(200):
        chance = random.Random(seed)
        tail = mutate_bytes(content[start - 10 :], chance)
        path.write_bytes(
            content[: start - 10] + tail if seed % 2 else mutate_bytes(content, chance)
        )
        try:
            read_spec(path)
        except ModelError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert [message for message in messages if len(message.splitlines()) != 1] == []


def test_what_cannot_be_read_is_not_written() -> None:
    boxes = AnchorSpec.from_array(SPEC.boxes.boxes() * 1e6)
    with pytest.raises(ModelError, match=r"field 'boxes.explicit' must contain finite boxes"):
        attach_spec(onnx.ModelProto(), type(SPEC)("m", SPEC.input, boxes, SPEC.labels))
