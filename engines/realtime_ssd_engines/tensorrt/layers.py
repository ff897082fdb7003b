"""What an engine consists of, and where its time goes: as a table for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from realtime_ssd.core.preprocess import preprocess
from realtime_ssd.core.spec import ModelSpec
from realtime_ssd_engines.onnx.verify import sample_frames
from realtime_ssd_engines.tensorrt.toolchain import TensorRT, Toolchain

__all__ = ["Layer", "measure", "read_layers", "table", "to_json", "with_times"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an engine, often several operators of the model in one kernel.

    Attributes:
        name: As TensorRT calls it; names of the operators inside, joined by "+".
        kind: Such as "CaskConvolution"; "" where TensorRT does not tell.
        inputs: Type and shape of every input, such as "Half 1x3x300x300".
        outputs: Likewise.
        tactic: The kernel that was chosen.
        milliseconds: Mean time of a run; None if it was not measured.
    """

    name: str
    kind: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    tactic: str = ""
    milliseconds: float | None = None


def read_layers(text: str) -> list[Layer]:
    """Read the inspector's JSON text, as TensorRT 8.6, 10 and 11 write it.

    An engine that was built without detailed profiling tells names only. A text that cannot be
    read gives no layers.
    """
    try:
        layers = json.loads(text).get("Layers", [])
    except (ValueError, AttributeError):
        return []
    return [_layer(layer) for layer in layers]


def _layer(found: Any) -> Layer:
    if not isinstance(found, dict):
        return Layer(str(found))
    return Layer(
        name=str(found.get("Name", "")),
        kind=str(found.get("LayerType", "")),
        inputs=tuple(_tensor(item) for item in found.get("Inputs") or []),
        outputs=tuple(_tensor(item) for item in found.get("Outputs") or []),
        tactic=str(found.get("TacticName") or found.get("TacticValue") or ""),
    )


def _tensor(found: Any) -> str:
    """Say type and shape; older releases mix the type with the memory format."""
    if not isinstance(found, dict):
        return str(found)
    kind = str(found.get("Datatype") or found.get("Format/Datatype") or found.get("Format") or "?")
    sizes = found.get("Dimensions") or []
    return f"{kind} {'x'.join(str(size) for size in sizes)}".strip()


def with_times(layers: Sequence[Layer], times: Mapping[str, float]) -> list[Layer]:
    """Join layers and measured times by name; what was measured alone is added at the end.

    Args:
        layers: From `read_layers`.
        times: Milliseconds by name.
    """
    named = {layer.name for layer in layers}
    timed = [replace(layer, milliseconds=times.get(layer.name)) for layer in layers]
    return timed + [Layer(name, milliseconds=t) for name, t in times.items() if name not in named]


def table(layers: Sequence[Layer], width: int = 60) -> str:
    """Lay layers out for people, in order of execution.

    Args:
        layers: The layers.
        width: Characters of a name that are shown.

    Returns:
        Lines of milliseconds, share of the whole, kind, outputs and name, then the sum.
    """
    total = sum(layer.milliseconds or 0.0 for layer in layers)
    lines = [f"{'ms':>8}  {'share':>6}  {'kind':<20}  {'output':<28}  name"]
    for layer in layers:
        spent = layer.milliseconds
        time = "" if spent is None else f"{spent:.4f}"
        share = "" if spent is None or not total else f"{100 * spent / total:.1f} %"
        output = ", ".join(layer.outputs)
        lines.append(
            f"{time:>8}  {share:>6}  {_cut(layer.kind, 20):<20}  {_cut(output, 28):<28}  "
            f"{_cut(layer.name, width)}"
        )
    lines.append(f"{total:8.4f}  {len(layers)} layers" if total else f"{len(layers)} layers")
    return "\n".join(line.rstrip() for line in lines)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def to_json(layers: Sequence[Layer]) -> str:
    """Give layers as a JSON text."""
    return json.dumps([asdict(layer) for layer in layers], indent=1)


def measure(
    plan: bytes, spec: ModelSpec, rounds: int, toolchain: Toolchain | None = None
) -> list[Layer]:
    """List the layers of an engine with the time each takes on one image of the built-in street.

    Args:
        plan: The serialised engine.
        spec: Contract of the model.
        rounds: Runs to average over.
        toolchain: What runs it; TensorRT if None.
    """
    tensor = preprocess(sample_frames(1)[0], spec.input)
    with (toolchain or TensorRT()).open(plan, spec) as engine:
        return with_times(read_layers(engine.layers()), engine.times(tensor, rounds))
