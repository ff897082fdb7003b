"""The user's choices about inference, checked and applied to the specification of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from numbers import Real

from realtime_ssd.backends.base import BackendOptions
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.gpu import find_gpus
from realtime_ssd.core.spec import ModelSpec

__all__ = ["OTHER_CLASSES", "check_device", "check_options", "class_ids", "with_options"]

OTHER_CLASSES = "*"
"""Key of the score threshold of all classes without one of their own."""


def check_options(options: BackendOptions) -> None:
    """Check the options that do not depend on the model.

    Raises:
        UsageError: If a value is out of range.
    """
    scores = options.score_threshold
    if isinstance(scores, Mapping):
        for name, score in scores.items():
            _check_threshold("score_threshold", score, f" for class '{name}'")
    else:
        _check_threshold("score_threshold", scores)
    _check_threshold("iou_threshold", options.iou_threshold)
    for name in ("batch", "pre_nms_top_k"):
        count: int | None = getattr(options, name)
        if count is not None and count < 1:
            raise UsageError(f"`{name}` must be at least 1, not {count}")
    if options.device is not None:
        check_device(options.device)


def check_device(device: int) -> None:
    """Check the number of a GPU.

    Raises:
        UsageError: If this machine has no such GPU.
    """
    count = len(find_gpus())
    if not 0 <= device < count:
        available = f"GPUs 0 to {count - 1}" if count > 1 else "only GPU 0" if count else "no GPU"
        raise UsageError(f"`device` {device} does not exist: the NVIDIA driver finds {available}")


def _check_threshold(name: str, value: object, where: str = "") -> None:
    if value is None and not where:
        return
    number = float(value) if isinstance(value, Real) else None
    if number is None or not 0 <= number <= 1:
        shown = repr(value) if number is None else f"{number:g}"
        raise UsageError(f"`{name}` must be between 0 and 1{where}, not {shown}")


def with_options(spec: ModelSpec, options: BackendOptions) -> ModelSpec:
    """Return the specification of a model with the thresholds of the user.

    Raises:
        UsageError: If a class is unknown to the model.
    """
    scores = options.score_threshold
    by_class: tuple[float, ...] | None = None
    if isinstance(scores, Mapping):
        by_class = _scores_by_class(spec, scores)
        scores = scores.get(OTHER_CLASSES)
    return spec.with_thresholds(
        score_threshold=scores,
        class_scores=by_class,
        iou_threshold=options.iou_threshold,
        pre_nms_top_k=options.pre_nms_top_k,
        agnostic_nms=options.agnostic_nms or None,
    )


def _scores_by_class(spec: ModelSpec, scores: Mapping[str, float]) -> tuple[float, ...]:
    """Return the score threshold of each column."""
    others = scores.get(OTHER_CLASSES, spec.thresholds.score_threshold)
    thresholds = [float(others)] * spec.num_classes
    for name, score in scores.items():
        if name != OTHER_CLASSES:
            for column in _columns(spec, name):
                thresholds[column] = float(score)
    return tuple(thresholds)


def class_ids(spec: ModelSpec, names: Sequence[str]) -> tuple[int, ...] | None:
    """Return the score columns of class names.

    Args:
        spec: Specification of the model.
        names: Labels of the model, in upper or lower case; empty for all classes.

    Returns:
        The columns, or None for all classes.

    Raises:
        UsageError: If a name is not a label of the model.
    """
    return tuple(column for name in names for column in _columns(spec, name)) or None


def _columns(spec: ModelSpec, name: str) -> list[int]:
    """Return the columns with a label, in upper or lower case."""
    labels = [label.lower() for label in spec.labels]
    found = [n for n, label in enumerate(labels) if label == name.lower() and n != spec.background]
    if not found:
        known = [label for n, label in enumerate(labels) if n != spec.background]
        close = get_close_matches(name.lower(), known, n=1, cutoff=0.6)
        hint = f"did you mean '{close[0]}'" if close else f"choose from {_some(known)}"
        raise UsageError(f"class '{name}' is unknown to model '{spec.name}'; {hint}")
    return found


def _some(names: list[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
