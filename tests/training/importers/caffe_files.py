"""Caffe files for the tests: published definitions, and weights in the wire form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Weights = dict[str, list[NDArray[Any]]]


def varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def block(field: int, data: bytes) -> bytes:
    """Encode a length-delimited field."""
    return varint(field << 3 | 2) + varint(len(data)) + data


def blob(array: NDArray[Any], *, old: bool = False) -> bytes:
    """Encode a blob, with a shape or with the older num, channels, height and width."""
    data = block(5, array.astype("<f4").tobytes())
    if not old:
        return data + block(7, block(1, b"".join(map(varint, array.shape))))
    sizes = (1,) * (4 - array.ndim) + array.shape
    return b"".join(varint(i << 3) + varint(s) for i, s in enumerate(sizes, 1)) + data


def encode_layer(name: str, blobs: list[bytes], *, old: bool = False) -> bytes:
    """Encode a layer of a network; `old` for a V1 layer."""
    title = block(4 if old else 1, name.encode())
    return block(2 if old else 100, title + b"".join(block(6 if old else 7, b) for b in blobs))


def write_caffemodel(path: Path, weights: Weights, *, old: bool = False) -> None:
    """Write a network; `old` for V1 layers with four-dimensional blobs."""
    layers = [
        encode_layer(name, [blob(array, old=old) for array in arrays], old=old)
        for name, arrays in weights.items()
    ]
    path.write_bytes(block(1, b"net") + b"".join(layers))


def random_weights(definition: str, seed: int = 0) -> Weights:
    """Draw weights for every convolution, BatchNorm, Scale and Normalize of a definition.

    The text is read with regular expressions, independently of the parser under test.
    """
    rng = np.random.default_rng(seed)
    weights: Weights = {}
    channels = {"data": 3}
    for text in re.split(r"\nlayer\s*\{", definition)[1:]:
        name, kind = re.findall(r'\bname: "(.+?)"', text)[0], re.findall(r'type: "(.+?)"', text)[0]
        bottom, top = re.findall(r'bottom: "(.+?)"', text), re.findall(r'top: "(.+?)"', text)
        inputs = channels.get(bottom[0], 0) if bottom else 0
        arrays, outputs = draw_weights(rng, kind, text, inputs)
        if arrays:
            weights[name] = arrays
        channels |= dict.fromkeys(top, outputs)
    return weights


def sharpened(weights: Weights) -> Weights:
    """Multiply the score heads by four, so that some scores are high."""
    return {
        name: [array * 4 for array in arrays] if "_conf" in name else arrays
        for name, arrays in weights.items()
    }


def draw_weights(
    rng: np.random.Generator, kind: str, text: str, inputs: int
) -> tuple[list[NDArray[Any]], int]:
    """Draw the blobs of one layer; return them and the number of its output channels."""

    def number(key: str, default: int) -> int:
        return int(next(iter(re.findall(rf"\b{key}: (\d+)", text)), default))

    if kind == "Convolution":
        outputs, kernel = number("num_output", 0), number("kernel_size", 1)
        shape = (outputs, inputs // number("group", 1), kernel, kernel)
        arrays = [rng.normal(scale=np.sqrt(2 / np.prod(shape[1:])), size=shape)]
        if "bias_term: false" not in text:
            arrays.append(rng.normal(scale=0.1, size=outputs))
        return list(arrays), outputs
    if kind == "BatchNorm":
        positive = rng.uniform(0.5, 2, inputs)
        return [rng.normal(scale=0.2, size=inputs), positive, np.array([0.5])], inputs
    if kind == "Scale":
        return [rng.uniform(0.5, 1.5, inputs), rng.normal(scale=0.1, size=inputs)], inputs
    if kind == "Normalize":
        return [rng.uniform(10, 30, inputs)], inputs
    return [], inputs


def layer(name: str, kind: str, bottoms: str, top: str, options: str = "") -> str:
    bottom_lines = "".join(f'  bottom: "{bottom}"\n' for bottom in bottoms.split())
    return (
        f'layer {{\n  name: "{name}"\n  type: "{kind}"\n{bottom_lines}  top: "{top}"\n{options}}}\n'
    )


RATES = "".join(
    f"  param {{\n    lr_mult: {rate}\n    decay_mult: {2 - rate}\n  }}\n" for rate in (1, 2)
)
FILLERS = 'weight_filler { type: "xavier" }\n bias_filler { type: "constant" value: 0 }\n'


def conv(name: str, bottom: str, outputs: int, kernel: int, extra: str = "") -> str:
    options = f"num_output: {outputs}\n kernel_size: {kernel}\n {extra}\n {FILLERS}"
    return layer(name, "Convolution", bottom, name, f"{RATES}  convolution_param {{ {options} }}\n")


def relu(name: str) -> str:
    return layer(f"relu_{name}", "ReLU", name, name)


# Feature maps with the step and the aspect ratios of their boxes.
HEADS = {
    300: [
        ("conv4_3_norm", 8, (2,)),
        ("fc7", 16, (2, 3)),
        ("conv6_2", 32, (2, 3)),
        ("conv7_2", 64, (2, 3)),
        ("conv8_2", 100, (2,)),
        ("conv9_2", 300, (2,)),
    ],
    512: [
        ("conv4_3_norm", 8, (2,)),
        ("fc7", 16, (2, 3)),
        ("conv6_2", 32, (2, 3)),
        ("conv7_2", 64, (2, 3)),
        ("conv8_2", 128, (2, 3)),
        ("conv9_2", 256, (2,)),
        ("conv10_2", 512, (2,)),
    ],
}
# Published minimum sizes in pixels by input size and score columns (VOC 21, COCO 81); each is the
# maximum size of the previous map.
SIDES = {
    (300, 21): (30, 60, 111, 162, 213, 264, 315),
    (300, 81): (21, 45, 99, 153, 207, 261, 315),
    (512, 21): (35.84, 76.8, 153.6, 230.4, 307.2, 384.0, 460.8, 537.6),
    (512, 81): (20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72),
}


def vgg_definition(size: int, classes: int, width: float = 1) -> str:
    """Return weiliu89's deploy.prototxt; `width` scales all channels for fast tests."""
    text = f'name: "VGG_SSD_{size}"\ninput: "data"\n'
    text += f"input_shape {{ dim: 1 dim: 3 dim: {size} dim: {size} }}\n"
    text += "".join(vgg_layers(width)) + "".join(extra_layers(size, width))
    text += layer(
        "conv4_3_norm",
        "Normalize",
        "conv4_3",
        "conv4_3_norm",
        'norm_param { across_spatial: false scale_filler { type: "constant" value: 20 } '
        "channel_shared: false }\n",
    )
    return text + "".join(heads(size, classes))


def vgg_layers(width: float) -> Iterator[str]:
    bottom = "data"
    for stage, (count, channels) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], 1):
        for number in range(1, count + 1):
            name = f"conv{stage}_{number}"
            yield conv(name, bottom, int(channels * width), 3, "pad: 1") + relu(name)
            bottom = name
        window = "kernel_size: 3 stride: 1 pad: 1" if stage == 5 else "kernel_size: 2 stride: 2"
        bottom = f"pool{stage}"
        yield layer(bottom, "Pooling", name, bottom, f"pooling_param {{ pool: MAX {window} }}\n")
    channels_fc = int(1024 * width)
    yield conv("fc6", bottom, channels_fc, 3, "pad: 6 dilation: 6") + relu("fc6")
    yield conv("fc7", "fc6", channels_fc, 1) + relu("fc7")


def extra_layers(size: int, width: float) -> Iterator[str]:
    halving = "pad: 1 stride: 2"
    if size == 300:
        plan = [(256, 512, 3, halving), (128, 256, 3, halving), *[(128, 256, 3, "")] * 2]
    else:
        plan = [(256, 512, 3, halving), *[(128, 256, 3, halving)] * 3, (128, 256, 4, "pad: 1")]
    bottom = "fc7"
    for stage, (squeezed, outputs, kernel, extra) in enumerate(plan, 6):
        first, second = f"conv{stage}_1", f"conv{stage}_2"
        yield conv(first, bottom, int(squeezed * width), 1) + relu(first)
        yield conv(second, first, int(outputs * width), kernel, extra) + relu(second)
        bottom = second


def heads(size: int, classes: int) -> Iterator[str]:
    names = [name for name, *_ in HEADS[size]]
    sides = SIDES[size, classes]
    for (name, step, ratios), low, high in zip(HEADS[size], sides, sides[1:], strict=False):
        count = 2 + 2 * len(ratios)
        for part, columns in (("loc", 4), ("conf", classes)):
            head = f"{name}_mbox_{part}"
            yield conv(head, name, count * columns, 3, "pad: 1")
            order = "permute_param { order: 0 order: 2 order: 3 order: 1 }\n"
            yield layer(f"{head}_perm", "Permute", head, f"{head}_perm", order)
            flat = "flatten_param { axis: 1 }\n"
            yield layer(f"{head}_flat", "Flatten", f"{head}_perm", f"{head}_flat", flat)
        options = (
            f"min_size: {low} max_size: {high} step: {step} offset: 0.5 flip: true clip: false"
        )
        options += "".join(f" aspect_ratio: {ratio}" for ratio in ratios)
        options += "".join(f" variance: {value}" for value in (0.1, 0.1, 0.2, 0.2))
        top = f"{name}_mbox_priorbox"
        yield layer(top, "PriorBox", f"{name} data", top, f"prior_box_param {{ {options} }}\n")
    for part, axis, tail in (("loc", 1, "_flat"), ("conf", 1, "_flat"), ("priorbox", 2, "")):
        bottoms = " ".join(f"{name}_mbox_{part}{tail}" for name in names)
        top = f"mbox_{part}"
        yield layer(top, "Concat", bottoms, top, f"concat_param {{ axis: {axis} }}\n")
    yield layer(
        "mbox_conf_reshape",
        "Reshape",
        "mbox_conf",
        "mbox_conf_reshape",
        f"reshape_param {{ shape {{ dim: 0 dim: -1 dim: {classes} }} }}\n",
    )
    yield layer(
        "mbox_conf_softmax",
        "Softmax",
        "mbox_conf_reshape",
        "mbox_conf_softmax",
        "softmax_param { axis: 2 }\n",
    )
    yield layer("mbox_conf_flatten", "Flatten", "mbox_conf_softmax", "mbox_conf_flatten")
    yield layer(
        "detection_out",
        "DetectionOutput",
        "mbox_loc mbox_conf_flatten mbox_priorbox",
        "detection_out",
        f"include {{ phase: TEST }}\n detection_output_param {{ num_classes: {classes} "
        "share_location: true background_label_id: 0 nms_param { nms_threshold: 0.45 top_k: 400 }\n"
        'save_output_param { label_map_file: "data/labelmap.prototxt" } # ignored\n'
        "code_type: CENTER_SIZE keep_top_k: 200 confidence_threshold: 0.01 }\n",
    )
