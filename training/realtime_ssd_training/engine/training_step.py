"""One step of training: forward, loss, backward and the update of the weights."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from realtime_ssd.core.errors import UsageError
from realtime_ssd_training.engine.batched_matching import PaddedTargets, pad_targets
from realtime_ssd_training.engine.distributed import DistributedContext
from realtime_ssd_training.engine.loader import Batch, Target
from realtime_ssd_training.engine.loss import Losses, MultiBoxLoss
from realtime_ssd_training.engine.optim import ExponentialMovingAverage, set_learning_rate
from realtime_ssd_training.models import SSD
from realtime_ssd_training.recipe import Recipe

__all__ = ["NotFiniteError", "StepResult", "TrainingStep"]

DTYPES = {"none": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MIN_GRADIENT_SCALE = 2.0**-14
"""If fp16 gradients overflow even at this loss scale, the run has diverged."""


class NotFiniteError(Exception):
    """The loss or the gradient of a step is not finite."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """The numbers of a step over all processes.

    Attributes:
        loss: Weighted sum of both terms per matched default box.
        score_loss: Classification term.
        offset_loss: Localization term.
        stop_requested: Whether a process received a signal to stop.
    """

    loss: float
    score_loss: float
    offset_loss: float
    stop_requested: bool

    @property
    def losses(self) -> tuple[float, float, float]:
        """The loss and its two terms."""
        return self.loss, self.score_loss, self.offset_loss


class TrainingStep:
    """Updates the weights of a network, batch by batch.

    Args:
        model: The network, on its device.
        network: What is called in a step: the network, perhaps wrapped.
        recipe: The settings, with a precision that is not "auto".
        loss: The loss, on the same device.
        optimizer: The optimizer of the network.
        context: The processes of the run.
        ema: Moving average to update after each step, if any.
    """

    def __init__(
        self,
        model: SSD,
        network: nn.Module,
        recipe: Recipe,
        loss: MultiBoxLoss,
        optimizer: Optimizer,
        context: DistributedContext,
        ema: ExponentialMovingAverage | None,
    ) -> None:
        self.model, self.network, self.recipe = model, network, recipe
        self.loss, self.optimizer, self.context, self.ema = loss, optimizer, context, ema
        self.scaler = torch.amp.GradScaler(context.device.type, enabled=recipe.run.amp == "fp16")

    def run(self, batch: Batch, number: int, rate: float, stop_signal: int) -> StepResult:
        """Update the weights once.

        Args:
            batch: Images of this process.
            number: Index of the step in the run.
            rate: Learning rate.
            stop_signal: Signal that this process received, or 0.

        Raises:
            NotFiniteError: If the loss or the gradient is not finite; the weights are unchanged.
        """
        recipe, context = self.recipe, self.context
        # The random state of a step depends on its index only, so no generator has to be saved.
        torch.manual_seed(recipe.run.seed * 1_000_003 + number * context.world_size + context.rank)
        set_learning_rate(self.optimizer, rate)
        if recipe.data.difficult == "use":
            batch = batch.with_difficult_used()
        self.optimizer.zero_grad(set_to_none=True)
        sums = self._compute_gradients(batch.split(recipe.run.accumulate), stop_signal)
        norm = self._clip()
        # One transfer for all values, because each one synchronizes with the GPU.
        score_sum, offset_sum, count, stop, norm_value = torch.cat([sums, norm[None]]).tolist()
        if not (isfinite(score_sum + offset_sum) and (isfinite(norm_value) or self._can_rescale())):
            raise NotFiniteError
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema:
            self.ema.update()
        score_loss, offset_loss = score_sum / max(count, 1), offset_sum / max(count, 1)
        total = score_loss + self.loss.alpha * offset_loss
        return StepResult(total, score_loss, offset_loss, bool(stop))

    def _compute_gradients(self, parts: list[Batch], stop_signal: int) -> Tensor:
        """Add up the gradients of the parts of a batch.

        Returns:
            Sums of both terms, matched default boxes, and stop signals, over all processes.
        """
        matched = self._count_matched(parts) if len(parts) > 1 else None
        total = torch.zeros(3, device=self.context.device)
        for number, part in enumerate(parts, start=1):
            with self._gradient_exchange(last=number == len(parts)):
                losses = self._losses(part)
                local = torch.stack(
                    [losses.scores.detach(), losses.offsets.detach(), losses.matched]
                )
                total = total + local
                if len(parts) == 1:
                    sums = self._reduce(local, stop_signal)
                    matched = sums[2]
                self._backward(losses, matched)  # type: ignore[arg-type]
        return sums if len(parts) == 1 else self._reduce(total, stop_signal)

    def _reduce(self, local: Tensor, stop_signal: int) -> Tensor:
        stop = torch.full((1,), float(stop_signal), device=local.device, dtype=local.dtype)
        return self.context.all_reduce(torch.cat([local, stop]))

    def _count_matched(self, parts: list[Batch]) -> Tensor:
        """Return the number of matched default boxes of the whole batch over all processes."""
        counts = [(self.loss.assign(self._targets(part))[0] > 0).sum() for part in parts]
        return self.context.all_reduce(torch.stack(counts).sum().float())

    def _gradient_exchange(self, *, last: bool) -> AbstractContextManager[None]:
        """Return a context in which processes exchange gradients only after the last part."""
        if last or not isinstance(self.network, nn.parallel.DistributedDataParallel):
            return nullcontext()
        return self.network.no_sync()

    def _targets(self, batch: Batch) -> list[Target] | PaddedTargets:
        """Return the targets on the device, in the form that suits it."""
        device = self.context.device
        if device.type == "cpu":
            return batch.targets
        padded = pad_targets(batch.targets)
        return (padded.pin_memory() if device.type == "cuda" else padded).to(device)

    def _losses(self, batch: Batch) -> Losses:
        targets = self._targets(batch)
        scores, offsets = self._forward(batch.to(self.context.device))
        return self.loss.parts(scores, offsets, targets)

    def _forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Run the network on a batch in the precision and memory format of the recipe."""
        images = batch.inputs(self.model.spec.input)
        if not self.recipe.run.channels_last:
            images = images.contiguous()
        dtype = DTYPES[self.recipe.run.amp]
        enabled = dtype is not torch.float32
        try:
            with torch.autocast(self.context.device.type, dtype, enabled=enabled):
                scores, offsets = self.network(images)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UsageError(
                "batch normalization cannot be trained with one image per step; use more images, "
                'a `batch` of at least two per process, or model.norm = "frozen"'
            ) from error
        return scores, offsets

    def _backward(self, losses: Losses, matched: Tensor) -> None:
        # Processes average their gradients; the factor turns the average back into a sum.
        factor = self.context.world_size / matched.clamp(min=1)
        loss = (losses.scores + self.loss.alpha * losses.offsets) * factor
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def _clip(self) -> Tensor:
        """Clip the gradient; return its norm before clipping."""
        self.scaler.unscale_(self.optimizer)
        limit = self.recipe.optimizer.clip or torch.inf
        return nn.utils.clip_grad_norm_(self.model.parameters(), limit)

    def _can_rescale(self) -> bool:
        """Return whether the scaler skips a step that overflows and reduces the loss scale."""
        return self.scaler.is_enabled() and self.scaler.get_scale() > MIN_GRADIENT_SCALE
