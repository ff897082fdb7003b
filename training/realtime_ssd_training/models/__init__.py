"""SSD networks, built by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.spec_decoder import FieldError, array, boolean, integer, number, text
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

_OPTION_RULES = {
    "width": number(1e-3, 16),
    "columns": integer(-8192, 8192),
    "rows": integer(-8192, 8192),
    "scales": array(number(-100, 100), 0, 64),
    "boxes": text(64),
    "norm": text(64),
    "reduced_tail": boolean,
}
"""Rules of the options of all networks, which a checkpoint or recipe may contain."""


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
    for option, value in options.items():
        if option not in known:
            raise UsageError(
                f"model '{name}' has no option '{option}'; the options are "
                f"{', '.join(known) or 'none'}"
            )
        _check_option(name, option, value)
    model = builder(labels, **options)
    model.options = dict(options)
    return model


def _check_option(name: str, option: str, value: object) -> None:
    """Check type and order of magnitude; the network itself checks what it supports."""
    rule = _OPTION_RULES.get(option)
    try:
        if rule is not None:
            rule(option, list(value) if isinstance(value, tuple) else value)
    except FieldError as error:
        raise UsageError(f"model '{name}' cannot be built: {error}") from None


def _check_labels(labels: Sequence[str]) -> None:
    if len(labels) < 2 or labels[0] != "background":
        raise UsageError(
            f"`labels` must be 'background' followed by at least one class, not {list(labels)[:3]}"
        )
    if len(set(labels)) != len(labels):
        raise UsageError("`labels` must not contain a class twice")
