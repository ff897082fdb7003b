"""Seeded mutations of JSON values and bytes."""

from __future__ import annotations

import copy
import json
import random
import re
import zlib
from typing import Any

import onnx

__all__ = [
    "mutate_bytes",
    "mutate_json",
    "mutate_onnx",
    "mutate_png",
    "mutate_safetensors",
    "mutate_text",
]

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -0.0, 1, -1, 3.5, 1e-320, 1e308, 2**31, -(2**63), 10**30, 10**400),
    *(float("nan"), float("inf"), -float("inf")),
    *("", "1", "x" * 5000, "a\nb", "\x1b[31m", "\u202e", "\ud800", "`a`", "AAAA", "é" * 300),
    *([], [[]], [1, "2", None], {}, {"a": {}}, [0] * 5000),
)


def mutate_json(value: Any, chance: random.Random) -> Any:
    """Return a copy of a JSON value in which one to three places are replaced, added or removed."""
    result = copy.deepcopy(value)
    for _ in range(chance.randint(1, 3)):
        parent, key = chance.choice(_places(result))
        action = chance.random()
        if action < 0.75:
            parent[key] = copy.deepcopy(chance.choice(HOSTILE))
        elif action < 0.85:
            del parent[key]
        elif isinstance(parent, dict):
            parent[chance.choice(("new", "", "__class__", key + "`x`\n"))] = parent[key]
        else:
            parent[key:key] = [parent[key]] * chance.choice((1, 100, 5000))
        if not _places(result):
            break
    return result


def _places(value: Any) -> list[tuple[Any, Any]]:
    """List the container and key of every value in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    places = [(value, key) for key, _ in items]
    for container, key in list(places)[:500]:
        if isinstance(container[key], dict | list):
            places += _places(container[key])
    return places


def mutate_bytes(data: bytes, chance: random.Random) -> bytes:
    """Return bytes of which a few are changed, removed, repeated or cut off."""
    result = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(result) or 1)
        length = chance.choice((1, 1, 2, 8, 100))
        action = chance.randrange(4)
        if action == 0:
            result[start : start + length] = chance.randbytes(length)
        elif action == 1:
            del result[start : start + length]
        elif action == 2:
            result[start:start] = result[start : start + length]
        elif chance.random() < 0.2:
            del result[start:]
        elif result:
            result[start] ^= 1 << chance.randrange(8)
    return bytes(result)


def mutate_png(data: bytes, chance: random.Random) -> bytes:
    """Return a PNG file with changes in its chunks and correct checksums."""
    position, parts = 8, []
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        parts.append(
            (data[position + 4 : position + 8], data[position + 8 : position + 8 + length])
        )
        position += 12 + length
    index = chance.randrange(len(parts))
    kind, content = parts[index]
    parts[index] = kind, mutate_bytes(content, chance)
    if chance.random() < 0.2:
        parts.insert(chance.randrange(len(parts)), chance.choice(parts))
    result = data[:8]
    for kind, content in parts:
        check = zlib.crc32(kind + content).to_bytes(4, "big")
        result += len(content).to_bytes(4, "big") + kind + content + check
    return result


def mutate_text(data: bytes, chance: random.Random) -> bytes:
    """Return a text in which one to three words or numbers are replaced."""
    text = data.decode()
    for _ in range(chance.randint(1, 3)):
        words = list(re.finditer(r"[\w.]+", text))
        if words:
            word = chance.choice(words)
            text = text[: word.start()] + chance.choice(WORDS) + text[word.end() :]
    return text.encode(errors="surrogatepass")


WORDS = (
    "0", "-1", "1e400", "nan", "inf", "99999999999999999999", "0x10", "1_000", "true", "''", "[]",
    "{}", "../..", "/etc/passwd", "\x1b[31m", "\u202e", "\0", "é" * 300, "x" * 5000, "<a/>", "&b;",
    "&#0;", "!!python/object:os.system", "*a", "&a [*a]", "[" * 300, "2026-01-01", "\ud800", "",
)  # fmt: skip


def mutate_safetensors(data: bytes, chance: random.Random) -> bytes:
    """Return a checkpoint with changes in its header, the table of tensors or the bytes of both."""
    length = int.from_bytes(data[:8], "little")
    table, values = json.loads(data[8 : 8 + length]), data[8 + length :]
    action = chance.randrange(4)
    if action < 2:
        header = json.loads(table["__metadata__"]["realtime_ssd"])
        changed = mutate_json(header, chance)
        table["__metadata__"]["realtime_ssd"] = json.dumps(changed)
    elif action == 2:
        name = chance.choice([key for key in table if key != "__metadata__"])
        table[name] = mutate_json(table[name], chance)
    content = json.dumps(table).encode()
    if action == 3:
        content = mutate_bytes(content, chance)
        return chance.choice((len(content), length, 2**63)).to_bytes(8, "little") + content + values
    return len(content).to_bytes(8, "little") + content + values


def mutate_onnx(data: bytes, chance: random.Random) -> bytes:
    """Return an ONNX file in which attributes, sizes, names or operators are replaced."""
    model = onnx.load_from_string(data)
    nodes = model.graph.node
    for _ in range(chance.randint(1, 3)):
        action, node = chance.randrange(7), chance.choice(nodes)
        if action == 0:
            node.op_type = chance.choice(OPERATORS)
        elif action == 1 and node.input:
            names = [name for item in nodes for name in (*item.input, *item.output)]
            node.input[chance.randrange(len(node.input))] = chance.choice(names)
        elif action == 2 and node.attribute:
            attribute = chance.choice(node.attribute)
            attribute.i = chance.choice(SIZES)
            if attribute.ints:
                attribute.ints[chance.randrange(len(attribute.ints))] = chance.choice(SIZES)
        elif action == 3:
            tensor = chance.choice(model.graph.initializer)
            tensor.dims[chance.randrange(len(tensor.dims))] = chance.choice(SIZES)
        elif action == 4:
            tensor = chance.choice(model.graph.initializer)
            if tensor.data_type == onnx.TensorProto.INT64:
                start = 8 * chance.randrange(len(tensor.raw_data) // 8)
                size = chance.choice(SIZES).to_bytes(8, "little", signed=True)
                tensor.raw_data = tensor.raw_data[:start] + size + tensor.raw_data[start + 8 :]
        elif action == 5:
            tensor = chance.choice(model.graph.initializer)
            tensor.data_type = chance.randrange(24)
        else:
            name = chance.choice(("kernel_shape", "pads", "strides", "dilations", "group", "axis"))
            sizes = [chance.choice(SIZES) for _ in range(chance.choice((1, 2, 4)))]
            node.attribute.append(
                onnx.helper.make_attribute(name, sizes[0] if len(sizes) == 1 else sizes)
            )
    return bytes(model.SerializeToString())


SIZES = (0, 1, -1, 2, 3, 7, 1000, 2**16, 2**31 - 1, 2**31, 2**33, 2**62, -(2**63), 2**63 - 1)
OPERATORS = (
    "Add", "ArgMax", "AveragePool", "Concat", "ConstantOfShape", "Conv", "ConvTranspose", "CumSum",
    "DepthToSpace", "DequantizeLinear", "Expand", "Flatten", "Gather", "GatherND", "Gemm", "LRN",
    "LogSoftmax", "MatMul", "MaxPool", "Mod", "NonMaxSuppression", "NonZero", "OneHot", "PRelu",
    "Pad", "QLinearConv", "QuantizeLinear", "Range", "ReduceMax", "ReduceSum", "Reshape", "Resize",
    "ScatterND", "Slice", "Softmax", "SpaceToDepth", "Split", "Squeeze", "Tile", "TopK",
    "Transpose", "Unsqueeze", "Upsample", "Where",
)  # fmt: skip
