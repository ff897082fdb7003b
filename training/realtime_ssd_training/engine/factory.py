"""The parts of a run, built as its recipe says: loader, loss, and the network as it is called."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from realtime_ssd.core.errors import RealtimeSSDError, first_line
from realtime_ssd_training.data.augment import build_augmentation
from realtime_ssd_training.data.sample import Dataset
from realtime_ssd_training.engine.distributed import World
from realtime_ssd_training.engine.loader import Loader, LoaderOptions
from realtime_ssd_training.engine.loss import MultiBoxLoss
from realtime_ssd_training.models import SSD
from realtime_ssd_training.recipe import Recipe

__all__ = ["build_loader", "build_loss", "build_network", "freeze_norms", "train_mode"]


def build_loader(model: SSD, recipe: Recipe, train: Dataset, world: World) -> Loader:
    """Build what deals out the training set."""
    options = LoaderOptions(
        batch_size=world.share(recipe.run.batch),
        workers=recipe.run.workers,
        seed=recipe.run.seed,
        rank=world.rank,
        world_size=world.size,
        pin_memory=world.device.type == "cuda",
    )
    return Loader(
        train, model.spec.input, options, build_augmentation(model.spec.input, recipe.augment)
    )


def build_loss(model: SSD, recipe: Recipe) -> MultiBoxLoss:
    """Build the loss for a network, on its device."""
    part = recipe.loss
    return MultiBoxLoss(
        model.spec,
        model.default_boxes,
        iou_threshold=part.iou_threshold,
        negatives=part.negatives,
        alpha=part.alpha,
        first=part.first,
    ).to(model.default_boxes.device)


def build_network(model: SSD, recipe: Recipe, world: World) -> nn.Module:
    """Compile the network and let it share gradients, where asked for.

    Returns:
        What a step calls; its weights are those of `model`.
    """
    network: nn.Module = model
    gpus = world.size > 1 and world.device.type == "cuda"
    if gpus:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    if recipe.run.compile:
        network = _Compiled(network)
    if world.size > 1:
        return nn.parallel.DistributedDataParallel(network, [world.device] if gpus else None)
    return network


class _Compiled(nn.Module):
    """A network that `torch.compile` translates when it is first called."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.works = torch.compile(network), False

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `SSD.forward`."""
        try:
            scores, offsets = self.network(images)
        except Exception as error:
            if self.works:
                raise
            reason = first_line(error)
            raise RealtimeSSDError(
                f"torch.compile cannot translate the network ({reason}); leave --compile out, or "
                "install a C++ compiler if that is what is missing"
            ) from error
        self.works = True
        return scores, offsets


def _norms(model: nn.Module) -> Iterator[nn.Module]:
    return (layer for layer in model.modules() if isinstance(layer, _BatchNorm))


def freeze_norms(model: nn.Module) -> None:
    """Keep scale and shift of all batch normalisations as they are."""
    for layer in _norms(model):
        layer.requires_grad_(False)


def train_mode(model: nn.Module, *, frozen: bool) -> None:
    """Put a network into training mode, but for normalisations whose statistics stay."""
    model.train()
    if frozen:
        for layer in _norms(model):
            layer.eval()
