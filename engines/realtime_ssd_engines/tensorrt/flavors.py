"""Chooses between TensorRT and TensorRT-RTX on this machine."""

from __future__ import annotations

from functools import cache

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.gpu import Gpu, find_gpus
from realtime_ssd_engines.requirements import FLAVOR_NAMES, Flavor, installed_flavors
from realtime_ssd_engines.tensorrt import compat, library

__all__ = ["explain_flavor", "usable_flavors"]


@cache
def usable_flavors(device: int = 0) -> tuple[tuple[Flavor, ...], dict[Flavor, str]]:
    """Return the flavors of TensorRT that run on a GPU of this machine.

    Args:
        device: Index of the GPU.

    Returns:
        The flavors, the preferred one first, and why each of the others does not run.
    """
    gpus = find_gpus()
    gpu = gpus[device] if device < len(gpus) else None
    rejected = {flavor: _problem(flavor, gpu) for flavor in FLAVOR_NAMES}
    usable = tuple(flavor for flavor, problem in rejected.items() if not problem)
    return usable, {flavor: problem for flavor, problem in rejected.items() if problem}


def _problem(flavor: Flavor, gpu: Gpu | None) -> str:
    """Return why a flavor does not run on a GPU, or ""."""
    if flavor not in installed_flavors():
        return "is not installed"
    if gpu is None:
        return "needs a GPU" + (" to run engines, but not to build them" * (flavor == "rtx"))
    try:
        library.library(flavor)
    except ModelError as error:
        return str(error)
    supported = compat.supported_capabilities(flavor)
    capability = "{}.{}".format(*gpu.capability)
    if supported and capability not in supported:
        return f"does not support GPU '{gpu.name}' with compute capability {capability}"
    return ""


def explain_flavor(device: int = 0) -> str:
    """Return a sentence that names the flavor that runs engines, and why the others do not."""
    usable, rejected = usable_flavors(device)
    reasons = [f"{FLAVOR_NAMES[flavor]} {problem}" for flavor, problem in rejected.items()]
    chosen = f"run with {FLAVOR_NAMES[usable[0]]}" if usable else "not available"
    return "; ".join([chosen, *reasons])
