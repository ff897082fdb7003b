"""SSDs on MobileNets: torchvision's SSDLite on V3, qfgaohao's mb1-ssd and mb2-ssd-lite.

Pre-processing, default boxes and thresholds are those of the networks in `realtime_ssd_training.models`, which
are these projects' own.
"""

from __future__ import annotations

from realtime_ssd_training.importers.families import Family, Weights, renamer
from realtime_ssd_training.importers.labels import numbered
from realtime_ssd_training.models import SSD, create

__all__ = ["FAMILIES"]

MAPS = 6


def _ends(scores: str, offsets: str, parts: dict[str, str]) -> dict[str, str]:
    """Map the parts of all heads."""
    return {
        f"{there}{k}{part}": f"{here}.{k}{own}"
        for there, here in ((scores, "score_heads"), (offsets, "offset_heads"))
        for k in range(MAPS)
        for part, own in parts.items()
    }


def _torchvision_block(there: str, here: str, *, widens: bool = True) -> dict[str, str]:
    """Map an inverted residual: widening (where there is one), depthwise, weighing, narrowing."""
    first = {f"{there}.0": f"{here}.expand"} if widens else {f"{there}.0": f"{here}.rest.0"}
    table = {**first, **{f"{there}.{k}": f"{here}.rest.{k - widens}" for k in (1, 2, 3)}}
    weighing = {}
    for k in (1, 2):
        weighing[f"{there}.{k}.fc1"] = f"{here}.rest.{k - widens}.squeeze"
        weighing[f"{there}.{k}.fc2"] = f"{here}.rest.{k - widens}.excite"
    return {**table, **weighing}


def _torchvision() -> dict[str, str]:
    """Map the trunk, cut in two where the first map is taken, the extras and the heads."""
    low, high, own = "backbone.features.0", "backbone.features.1", "backbone.blocks"
    table = {
        f"{low}.0": "backbone.stem",
        f"{low}.13": f"{own}.12.expand",
        f"{high}.3": "backbone.last",
        "backbone.extra": "backbone.extras",
    }
    for k in range(12):
        table |= _torchvision_block(f"{low}.{k + 1}.block", f"{own}.{k}", widens=k > 0)
    table |= _torchvision_block(f"{high}.0", f"{own}.12")
    for k in (1, 2):
        table |= _torchvision_block(f"{high}.{k}.block", f"{own}.{12 + k}")
    scores, offsets = "head.classification_head.module_list.", "head.regression_head.module_list."
    return {**table, **_ends(scores, offsets, {"": ""})}


def _qfgaohao_v1() -> dict[str, str]:
    """Map MobileNetV1, whose blocks are one list of six layers each."""
    table = {"base_net.0": "backbone.stem", "extras": "backbone.extras"}
    for k in range(13):
        for place, own in {0: "0.0", 1: "0.1", 3: "1.0", 4: "1.1"}.items():
            table[f"base_net.{k + 1}.{place}"] = f"backbone.blocks.{k}.{own}"
    return {**table, **_ends("classification_headers.", "regression_headers.", {"": ""})}


_WIDENING = {0: "expand.0", 1: "expand.1"}
_NARROWING = {0: "rest.0.0", 1: "rest.0.1", 3: "rest.1.0", 4: "rest.1.1"}


def _qfgaohao_block(there: str, here: str, *, widens: bool = True) -> dict[str, str]:
    """Map an inverted residual, whose layers are one list."""
    places = {place + 3: own for place, own in _NARROWING.items()} if widens else _NARROWING
    whole = {**_WIDENING, **places} if widens else places
    return {f"{there}.conv.{place}": f"{here}.{own}" for place, own in whole.items()}


def _qfgaohao_v2() -> dict[str, str]:
    """Map MobileNetV2 with SSDLite heads, the last of which is one plain convolution."""
    table = {"base_net.0": "backbone.stem", "base_net.18": "backbone.last"}
    for k in range(17):
        table |= _qfgaohao_block(f"base_net.{k + 1}", f"backbone.blocks.{k}", widens=k > 0)
    for k in range(4):
        table |= _qfgaohao_block(f"extras.{k}", f"backbone.extras.{k}")
    parts = {".0": ".0.0", ".1": ".0.1", ".3": ".1", ".weight": ".weight", ".bias": ".bias"}
    return {**table, **_ends("classification_headers.", "regression_headers.", parts)}


def _lite(weights: Weights, classes: int) -> SSD:
    last = weights.get("backbone.last.0.weight")
    reduced = last is None or last.shape[0] != 960
    return create("ssdlite320_mobilenet_v3_large", numbered(classes), reduced_tail=reduced)


def _mb1(weights: Weights, classes: int) -> SSD:
    return create("ssd300_mobilenet_v1_3x3", numbered(classes))


def _mb2(weights: Weights, classes: int) -> SSD:
    return create("ssd300_mobilenet_v2", numbered(classes))


FAMILIES = {
    "torchvision-ssdlite320": Family(
        ("backbone.features.0.0.0.weight", "head.classification_head.module_list.0.1.bias"),
        renamer(_torchvision()),
        _lite,
        "1.bias",
        "torchvision's SSDLite320 on MobileNetV3-Large",
    ),
    "qfgaohao-mb1-ssd": Family(
        ("base_net.13.3.weight", "classification_headers.0.bias"),
        renamer(_qfgaohao_v1()),
        _mb1,
        "bias",
        "mb1-ssd of qfgaohao/pytorch-ssd",
    ),
    "qfgaohao-mb2-ssd-lite": Family(
        ("base_net.14.conv.7.weight", "classification_headers.0.3.bias"),
        renamer(_qfgaohao_v2()),
        _mb2,
        "1.bias",
        "mb2-ssd-lite of qfgaohao/pytorch-ssd",
    ),
}
