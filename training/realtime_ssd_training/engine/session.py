"""What `realtime-ssd train` does, from the words of the command line to the exported model."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from realtime_ssd.core.errors import UsageError
from realtime_ssd_training.data import Dataset, summarise
from realtime_ssd_training.data.classes import format_names
from realtime_ssd_training.data.concat import open_datasets
from realtime_ssd_training.engine.checkpoint import load_model, read_checkpoint, start_from
from realtime_ssd_training.engine.distributed import World, join, leave
from realtime_ssd_training.engine.run_folder import RunFolder
from realtime_ssd_training.engine.train import Outcome, Trainer
from realtime_ssd_training.engine.training_log import Report
from realtime_ssd_training.models import SSD, create
from realtime_ssd_training.recipe import Recipe, as_dict, from_dict, load_recipe

__all__ = ["Command", "changed"]


FEW_STEPS = 1000
"""Shorter runs hardly find anything unless they start from other weights."""


@dataclass(frozen=True, slots=True)
class Command:
    """One call of `realtime-ssd train`.

    Attributes:
        recipe: Name or file of the recipe.
        output: Folder of the run.
        changes: Values that replace those of the recipe, by "part.name"; None changes nothing.
        resume: Whether a run goes on.
        init: Checkpoint to take weights from.
        device: What to compute on.
    """

    recipe: str
    output: Path
    changes: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False
    init: Path | None = None
    device: str = "auto"

    def start(self, preview: Path | None = None) -> None:
        """Train, or only paint a preview.

        Raises:
            RealtimeSSDError: If something does not fit or goes wrong.
        """
        recipe = changed(load_recipe(self.recipe), self.changes)
        train = _open(recipe, _train_text(recipe), recipe.data.labels, repeat=recipe.data.repeat)
        model = _network(recipe, train.labels)
        if preview is not None:
            self._preview(model, recipe, train, preview)
            return
        world = join(self.device)
        try:
            self._train(model, recipe, train, world)
        finally:
            leave()

    def _train(self, model: SSD, recipe: Recipe, train: Dataset, world: World) -> None:
        val = _open(recipe, recipe.data.val, train.labels) if recipe.data.val else None
        _check_objects(train, difficult=recipe.data.difficult == "use")
        if val is not None:
            _check_objects(val, difficult=False)
        folder = RunFolder(self.output, resume=self.resume)
        if world.first and not self.resume:
            self._start(model, recipe, folder, world)
        with Report(folder, world, train) as report:
            if val is not None and val.problems:
                report.problems(val.problems)
            trainer = Trainer(model, recipe, train, val, folder, world, report)
            if world.first:
                self._announce(trainer, train, val)
            if self.resume:
                trainer.resume()
            outcome = trainer.run()
        if world.first:
            finish(folder, outcome, train if val is None else val)
        if outcome.stopped:
            sys.exit(128 + outcome.stopped)

    def _announce(self, trainer: Trainer, train: Dataset, val: Dataset | None) -> None:
        """Say what is trained on, and what a first run of one's own often lacks."""
        recipe = trainer.recipe
        steps = len(trainer.loader) * recipe.run.epochs
        print(
            f"training on {_counted(len(train) // recipe.data.repeat, 'image')} "
            f"({format_names(train.labels[1:])}): {_counted(recipe.run.epochs, 'epoch')}, "
            f"{_counted(steps, 'step')}"
        )
        if val is None:
            print("no --val is given: nothing is scored, and the last weights are kept")
        else:
            print(f"scoring on {_counted(len(val), 'image')}")
        if steps < FEW_STEPS and not (self.init or recipe.model.backbone):
            print("that is short for a network from nothing; give more --epochs, or --init")

    def _start(self, model: SSD, recipe: Recipe, folder: RunFolder, world: World) -> None:
        """Note what is run and take over weights; the other processes get them from this one."""
        if recipe.model.backbone:
            from realtime_ssd_training.models.backbones import load_backbone

            taken, tensors = load_backbone(model, recipe.model.backbone)
            print(f"{taken} of {tensors} tensors of the backbone start from pretrained weights")
        if self.init:
            taken, tensors = start_from(model, self.init)
            print(f"{taken} of {tensors} tensors start from {self.init}")
        facts = {"processes": world.size, "device": str(world.device), "labels": model.spec.labels}
        init = str(self.init) if self.init else None
        folder.write_config({**facts, "init": init, "recipe": as_dict(recipe)})

    @staticmethod
    def _preview(model: SSD, recipe: Recipe, train: Dataset, sheet: Path) -> None:
        from realtime_ssd_training.data.preview import write_preview

        if train.problems:
            print(summarise(train.problems))
        write_preview(sheet, model, recipe, train)
        print(f"{sheet}: augmented samples with their matched default boxes")


def finish(folder: RunFolder, outcome: Outcome, data: Dataset) -> None:
    """Export the best weights of a run that is done, compared on its own images; say what there is.

    Args:
        folder: The run.
        outcome: How it ended.
        data: Images to compare the exported model on.
    """
    if outcome.stopped:
        print(
            f"stopped after {outcome.epochs} whole epochs, the state is saved in {folder.last}; "
            "add --resume to the command to go on"
        )
        return
    from realtime_ssd_training.export import export_onnx, first_images

    export_onnx(load_model(folder.best), folder.onnx, photos=first_images(data))
    best = read_checkpoint(folder.best).facts
    scored = f"mAP {best['score']:.4f} in " if best["score"] is not None else ""
    print(f"{folder.onnx}: {scored}epoch {best['epoch']} of {outcome.epochs}")


def changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Replace values of a recipe.

    Args:
        recipe: The recipe.
        changes: New values by "part.name"; None changes nothing.

    Raises:
        UsageError: If a value does not fit.
    """
    values = as_dict(recipe)
    for key, value in changes.items():
        if value is not None:
            part, name = key.split(".")
            values[part][name] = value
    return from_dict(values, "the command line")


def _network(recipe: Recipe, labels: Sequence[str]) -> SSD:
    """Build the network with new weights that the seed decides."""
    torch.manual_seed(recipe.run.seed)
    try:
        return create(recipe.model.name, labels, **recipe.model.options)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"the options {recipe.model.options} do not fit model '{recipe.model.name}': {error}"
        ) from error


def _open(recipe: Recipe, text: str, labels: Sequence[str], repeat: int = 1) -> Dataset:
    data = recipe.data
    return open_datasets(
        text, labels or None, remap=data.remap, only=data.only or None, repeat=repeat
    )


def _check_objects(data: Dataset, *, difficult: bool) -> None:
    """Refuse a set of which nothing can be learned or scored, before the work.

    Args:
        data: The set.
        difficult: Whether difficult objects count.
    """
    truths = (data.annotation(index) for index in range(len(data)))
    if not any((~truth.crowd & (~truth.difficult | difficult)).any() for truth in truths):
        raise UsageError(
            f"'{data.name}' has no object of the classes {format_names(data.labels[1:])} that "
            "counts; look at its annotations, --classes and --remap"
        )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _train_text(recipe: Recipe) -> str:
    if not recipe.data.train:
        raise UsageError(f"the recipe '{recipe.name}' names no training set; give one with --data")
    return recipe.data.train
