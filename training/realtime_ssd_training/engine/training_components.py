"""Construction of a run's components from its recipe: data loader, loss and trainable network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from realtime_ssd.core.cpu import cpu_count
from realtime_ssd.core.errors import RealtimeSSDError, first_line
from realtime_ssd_training.data.augment import build_augmentation
from realtime_ssd_training.data.sample import Dataset
from realtime_ssd_training.engine.distributed import DistributedContext
from realtime_ssd_training.engine.loader import Loader, LoaderOptions
from realtime_ssd_training.engine.loss import MultiBoxLoss
from realtime_ssd_training.models import SSD
from realtime_ssd_training.recipe import ModelConfig, Recipe, with_overrides

__all__ = [
    "build_loader",
    "build_loss",
    "build_network",
    "freeze_parts",
    "load_workers",
    "set_train_mode",
    "with_device_defaults",
]


def with_device_defaults(recipe: Recipe, device: torch.device) -> Recipe:
    """Return a recipe in which the precision is the one that suits a device."""
    if recipe.run.amp != "auto":
        return recipe
    bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return with_overrides(recipe, {"run.amp": "bf16" if bf16 else "none"})


def load_workers(recipe: Recipe, processes: int = 1) -> int:
    """Return the number of data loading processes of each training process."""
    workers = recipe.run.workers
    return max(1, min(8, cpu_count() // processes)) if workers == "auto" else workers


def build_loader(
    model: SSD, recipe: Recipe, dataset: Dataset, context: DistributedContext
) -> Loader:
    """Build the loader of the training set for this process."""
    options = LoaderOptions(
        batch_size=context.local_batch_size(recipe.run.batch),
        workers=load_workers(recipe, context.world_size),
        seed=recipe.run.seed,
        rank=context.rank,
        world_size=context.world_size,
        pin_memory=context.device.type == "cuda",
    )
    augment = build_augmentation(model.spec.input, recipe.augment)
    return Loader(dataset, model.spec.input, options, augment)


def build_loss(model: SSD, recipe: Recipe) -> MultiBoxLoss:
    """Build the loss for a network, on its device."""
    config = recipe.loss
    return MultiBoxLoss(
        model.spec,
        model.default_boxes,
        iou_threshold=config.iou_threshold,
        negatives=config.negatives,
        alpha=config.alpha,
        first=config.first,
    ).to(model.default_boxes.device)


def build_network(model: SSD, recipe: Recipe, context: DistributedContext) -> nn.Module:
    """Wrap a network for `torch.compile` and distributed training, as configured.

    Returns:
        The module to call in a training step; it shares its weights with `model`.
    """
    network: nn.Module = model
    multi_gpu = context.world_size > 1 and context.device.type == "cuda"
    if multi_gpu and recipe.run.sync_batch_norm:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    if context.device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # all batches have one size
    if recipe.run.compile:
        network = _CompiledNetwork(network)
    if context.world_size > 1:
        devices = [context.device] if multi_gpu else None
        return nn.parallel.DistributedDataParallel(network, devices)
    return network


class _CompiledNetwork(nn.Module):
    """A network that `torch.compile` compiles at the first call."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.compiled = torch.compile(network), False

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `SSD.forward`."""
        try:
            scores, offsets = self.network(images)
        except Exception as error:
            if self.compiled:
                raise
            raise RealtimeSSDError(
                f"torch.compile cannot compile the network ({first_line(error)}); disable "
                "`compile`, or install a C++ compiler if that is missing"
            ) from error
        self.compiled = True
        return scores, offsets


def _batch_norms(model: nn.Module) -> Iterator[nn.Module]:
    return (layer for layer in model.modules() if isinstance(layer, _BatchNorm))


_TRAINED_PARTS = ("extras", "laterals", "smooth")
"""Parts of `SSD.backbone` that belong to the detector rather than to the pretrained backbone."""


def freeze_parts(model: SSD, config: ModelConfig) -> list[nn.Module]:
    """Exclude the parts of a network from training that its recipe freezes.

    Returns:
        The layers that also keep their running statistics; see `set_train_mode`.
    """
    frozen = list(_batch_norms(model)) if config.norm == "frozen" else []
    if config.freeze == "backbone":
        parts = model.backbone.named_children()
        frozen += [part for name, part in parts if name not in _TRAINED_PARTS]
    for layer in frozen:
        layer.requires_grad_(False)
    return frozen


def set_train_mode(model: nn.Module, frozen: Iterable[nn.Module]) -> None:
    """Set a network to training mode, except for the layers in `frozen`."""
    model.train()
    for layer in frozen:
        layer.eval()
