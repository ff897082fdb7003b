"""Check for optional packages before work that needs them."""

from __future__ import annotations

from importlib.util import find_spec

from realtime_ssd.core.errors import RealtimeSSDError

__all__ = ["require_package"]


def require_package(name: str, module: str, purpose: str, alternative: str = "") -> None:
    """Check that a package of the extra `train` is installed, without importing it.

    Args:
        name: Name of the distribution, as in "faster-coco-eval".
        module: Name of its top-level module.
        purpose: Feature that needs it; begins the error message.
        alternative: Ending of the error message, as in " or set `metric` to voc".

    Raises:
        RealtimeSSDError: If it is not installed.
    """
    if find_spec(module) is None:
        raise RealtimeSSDError(
            f"{purpose} needs {name}, which is not installed; "
            f"install it with pip install 'realtime-ssd[train]'{alternative}"
        )
