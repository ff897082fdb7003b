"""Layers of an engine and their times, as a table and as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from realtime_ssd.core.preprocess import preprocess
from realtime_ssd.core.spec import ModelSpec
from realtime_ssd_engines.onnx.verify import synthetic_frames
from realtime_ssd_engines.tensorrt.toolchain import TensorRTToolchain, Toolchain

__all__ = [
    "Layer",
    "add_times",
    "format_table",
    "parse_build_log",
    "parse_layers",
    "profile_engine",
    "to_json",
]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an engine, often several fused operators of the model.

    Attributes:
        name: TensorRT's name: the names of the fused operators, joined by "+".
        kind: Such as "CaskConvolution"; "" if unknown.
        inputs: Type and shape of each input, such as "Half 1x3x300x300".
        outputs: Type and shape of each output.
        tactic: Selected kernel.
        milliseconds: Mean time per run; None if not measured.
    """

    name: str
    kind: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    tactic: str = ""
    milliseconds: float | None = None


def parse_layers(text: str) -> list[Layer]:
    """Parse the engine inspector's JSON text of TensorRT 8.6, 10 or 11.

    Engines built without detailed profiling contain layer names only. Return an empty list if the
    text cannot be parsed.
    """
    try:
        layers = json.loads(text).get("Layers", [])
    except (ValueError, AttributeError):
        return []
    return [_layer(layer) for layer in layers]


_LOGGED_LAYER = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<kind>\w*), Inputs: \[(?P<inputs>.*?)\], "
    r"(?:Constants: \[(?P<constants>.*?)\], )?Outputs: \[(?P<outputs>.*?)\], "
    r"TacticName: (?P<tactic>[^,]*)",
    re.MULTILINE,
)
_LOGGED_TENSOR = re.compile(r"Dimensions: \[([\d,-]*)\].*?Datatype: (\w+)")


def parse_build_log(text: str) -> list[Layer]:
    """Parse the layers that a build logs (TensorRT-RTX), which requires no GPU.

    The inputs of a layer include its constants, such as the weights of a convolution.

    Args:
        text: See `realtime_ssd_engines.tensorrt.library.MessageLog.layers`.
    """
    layers = []
    for match in _LOGGED_LAYER.finditer(text):
        inputs = f"{match['inputs']} {match['constants'] or ''}"
        layers.append(
            Layer(
                name=match["name"],
                kind=match["kind"],
                inputs=_logged_tensors(inputs),
                outputs=_logged_tensors(match["outputs"]),
                tactic=match["tactic"].strip(),
            )
        )
    return layers


def _logged_tensors(text: str) -> tuple[str, ...]:
    found = _LOGGED_TENSOR.findall(text)
    return tuple(f"{dtype} {sizes.replace(',', 'x')}".strip() for sizes, dtype in found)


def _layer(description: Any) -> Layer:
    if not isinstance(description, dict):
        return Layer(str(description))
    return Layer(
        name=str(description.get("Name", "")),
        kind=str(description.get("LayerType", "")),
        inputs=tuple(map(_tensor, description.get("Inputs") or [])),
        outputs=tuple(map(_tensor, description.get("Outputs") or [])),
        tactic=str(description.get("TacticName") or description.get("TacticValue") or ""),
    )


def _tensor(description: Any) -> str:
    """Return type and shape of a tensor; older versions combine the type with the memory format."""
    if not isinstance(description, dict):
        return str(description)
    names = ("Datatype", "Format/Datatype", "Format")
    dtype = next((str(description[name]) for name in names if description.get(name)), "?")
    sizes = description.get("Dimensions") or []
    return f"{dtype} {'x'.join(str(size) for size in sizes)}".strip()


def add_times(layers: Sequence[Layer], times: Mapping[str, float]) -> list[Layer]:
    """Add measured times to layers by name; append measured layers that are not in the list.

    Args:
        layers: From `parse_layers`.
        times: Milliseconds by name.
    """
    named = {layer.name for layer in layers}
    timed = [replace(layer, milliseconds=times.get(layer.name)) for layer in layers]
    return timed + [Layer(name, milliseconds=t) for name, t in times.items() if name not in named]


def format_table(layers: Sequence[Layer], width: int = 60) -> str:
    """Format layers as a table, in execution order.

    Args:
        layers: The layers.
        width: Maximum width of a name.

    Returns:
        Lines with milliseconds, share of the total, kind, outputs and name, then the total.
    """
    total = sum(layer.milliseconds or 0.0 for layer in layers)
    lines = [f"{'ms':>8}  {'share':>6}  {'kind':<20}  {'output':<28}  name"]
    for layer in layers:
        ms = layer.milliseconds
        time = "" if ms is None else f"{ms:.4f}"
        share = "" if ms is None or not total else f"{100 * ms / total:.1f} %"
        output = ", ".join(layer.outputs)
        lines.append(
            f"{time:>8}  {share:>6}  {_shorten(layer.kind, 20):<20}  {_shorten(output, 28):<28}  "
            f"{_shorten(layer.name, width)}"
        )
    lines.append(f"{total:8.4f}  {len(layers)} layers" if total else f"{len(layers)} layers")
    return "\n".join(line.rstrip() for line in lines)


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def to_json(layers: Sequence[Layer]) -> str:
    """Return layers as JSON."""
    return json.dumps([asdict(layer) for layer in layers], indent=1)


def profile_engine(
    plan: bytes, spec: ModelSpec, rounds: int, toolchain: Toolchain | None = None
) -> list[Layer]:
    """Return the layers of an engine with their times on a frame of the synthetic street.

    Args:
        plan: Serialized engine.
        spec: Specification of the model.
        rounds: Number of runs to average.
        toolchain: Loads the engine; TensorRT by default.
    """
    tensor = preprocess(synthetic_frames(1)[0], spec.input)
    with (toolchain or TensorRTToolchain()).load(plan, spec) as engine:
        return add_times(parse_layers(engine.layers()), engine.layer_times(tensor, rounds))
