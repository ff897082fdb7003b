"""Training, evaluation, export and import of SSD models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from realtime_ssd_training.training_api import Callback, TrainedModel, train

__all__ = ["Callback", "TrainedModel", "train"]


def __getattr__(name: str) -> Any:
    """Import the functions for Python when they are first used: they need PyTorch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from realtime_ssd_training import training_api

    return getattr(training_api, name)
