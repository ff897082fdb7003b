"""SSD networks, built by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature

from realtime_ssd.core.errors import UsageError
from realtime_ssd_training.models import (
    ssd300_mobilenet_v1,
    ssd300_mobilenet_v1_3x3,
    ssd300_mobilenet_v2,
    ssd300_resnet50,
    ssd300_vgg16,
    ssd512_vgg16,
    ssd_mobilenet_v1_fpn,
    ssdlite320_mobilenet_v3_large,
)
from realtime_ssd_training.models.ssd import SSD

__all__ = ["SSD", "create", "names"]

_BUILDERS: dict[str, Callable[..., SSD]] = {
    "ssd300_mobilenet_v1": ssd300_mobilenet_v1.build,
    "ssd300_mobilenet_v1_3x3": ssd300_mobilenet_v1_3x3.build,
    "ssd300_mobilenet_v2": ssd300_mobilenet_v2.build,
    "ssd300_resnet50": ssd300_resnet50.build,
    "ssd300_vgg16": ssd300_vgg16.build,
    "ssd512_vgg16": ssd512_vgg16.build,
    "ssd_mobilenet_v1_fpn": ssd_mobilenet_v1_fpn.build,
    "ssdlite320_mobilenet_v3_large": ssdlite320_mobilenet_v3_large.build,
}


def names() -> tuple[str, ...]:
    """Return the names of the networks that `create` builds."""
    return tuple(_BUILDERS)


def create(name: str, labels: Sequence[str], **options: object) -> SSD:
    """Build a network with random weights.

    Args:
        name: One of `names()`.
        labels: Class names; the first must be "background".
        **options: Options of that network, for example `width` of a MobileNet.

    Returns:
        The network, in training mode, on the CPU.

    Raises:
        UsageError: If the name, a label or an option is invalid.

    Example:
        >>> model = create("ssd300_mobilenet_v1", ["background", "car"], width=0.5)
        >>> model.spec.num_boxes
        1917
    """
    if name not in _BUILDERS:
        raise UsageError(f"model '{name}' does not exist; choose from {', '.join(names())}")
    _check_labels(labels)
    builder = _BUILDERS[name]
    known = [key for key in signature(builder).parameters if key != "labels"]
    for option in options:
        if option not in known:
            raise UsageError(
                f"model '{name}' has no option '{option}'; the options are "
                f"{', '.join(known) or 'none'}"
            )
    model = builder(labels, **options)
    model.options = dict(options)
    return model


def _check_labels(labels: Sequence[str]) -> None:
    if len(labels) < 2 or labels[0] != "background":
        raise UsageError(
            f"`labels` must be 'background' followed by at least one class, not {list(labels)[:3]}"
        )
    if len(set(labels)) != len(labels):
        raise UsageError("`labels` must not contain a class twice")
