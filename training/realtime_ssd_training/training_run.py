"""`TrainingRun`: from a recipe and options to the exported model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from realtime_ssd.core.errors import RealtimeSSDError, UsageError
from realtime_ssd.core.files import check_output
from realtime_ssd.core.frames import Image
from realtime_ssd_training.data import Dataset, summarize
from realtime_ssd_training.data.classes import format_names
from realtime_ssd_training.data.concat import open_datasets
from realtime_ssd_training.engine.distributed import (
    DistributedContext,
    destroy_distributed,
    init_distributed,
)
from realtime_ssd_training.engine.run_folder import RunFolder
from realtime_ssd_training.engine.trainer import Trainer, TrainingResult
from realtime_ssd_training.engine.training_components import with_device_defaults
from realtime_ssd_training.engine.training_log import Reporter, ReporterGroup, TrainingLog
from realtime_ssd_training.models import SSD, create
from realtime_ssd_training.models.checkpoint import (
    load_model,
    read_checkpoint,
)
from realtime_ssd_training.recipe import Recipe, load_recipe, to_dict, with_overrides

__all__ = ["OVERRIDES", "TrainingRun", "recipe_changes"]

SHORT_RUN_STEPS = 1000
"""Shorter runs learn little from random weights."""


OVERRIDES = {
    "data": "data.train",
    "val": "data.val",
    "classes": "data.classes",
    "remap": "data.remap",
    "backbone": "model.backbone",
    "freeze": "model.freeze",
    "lr": "optimizer.lr",
    **{
        name: f"run.{name}"
        for name in (
            "epochs",
            "batch",
            "accumulate",
            "seed",
            "workers",
            "amp",
            "compile",
            "sync_batch_norm",
            "patience",
        )
    },
}
"""Options of a run, and the keys of the recipe that they replace."""


def recipe_changes(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of `with_overrides` for options of a run; None keeps the recipe's.

    Raises:
        UsageError: If there is no such option.
    """
    for name in options:
        if name not in OVERRIDES:
            raise UsageError(f"there is no option `{name}`; the options are {', '.join(OVERRIDES)}")
    changes = {OVERRIDES[name]: value for name, value in options.items()}
    if changes.get("model.backbone") is not None:
        changes["model.backbone_optional"] = False
    if changes.get("model.backbone") == "none":
        changes["model.backbone"] = ""
    return changes


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """One training run.

    Attributes:
        recipe: Name or file of the recipe.
        output: Folder of the run.
        overrides: Values that replace those of the recipe; see `with_overrides`.
        resume: Whether to resume the run in `output`.
        overwrite: Whether to replace existing files.
        init: Detector of any kind to take all matching weights from.
        device: Device; see `init_distributed`.
        callbacks: Receive the progress, beside the terminal and TensorBoard.
    """

    recipe: str
    output: Path
    overrides: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False
    overwrite: bool = False
    init: Path | None = None
    device: str = "auto"
    callbacks: Sequence[Reporter] = ()

    def run(self, preview: Path | None = None) -> TrainingResult:
        """Train, or only write a preview.

        Args:
            preview: Image to write augmented samples to, instead of training.

        Returns:
            The end of the run; 0 epochs for a preview.

        Raises:
            RealtimeSSDError: If an option is invalid or the run fails.
        """
        if preview is None:
            # All processes of a distributed run check before the main process writes anything.
            folder = RunFolder(self.output, resume=self.resume, overwrite=self.overwrite)
        else:
            check_output(preview, overwrite=self.overwrite)
        recipe = _without_absent_backbone(
            self._recipe(), announce=preview is None and not self.init
        )
        if recipe.model.freeze == "backbone" and not (self.init or recipe.model.backbone):
            raise UsageError(
                "`freeze` keeps the weights of the backbone, which are random here; set `init` or "
                "`backbone` to pretrained ones"
            )
        train = _open_training_set(recipe)
        model = _build_model(recipe, train.labels)
        if preview is not None:
            _write_preview(model, recipe, train, preview)
            return TrainingResult(0)
        context = init_distributed(self.device)
        try:
            recipe = with_device_defaults(recipe, context.device)
            return self._train(model, recipe, train, folder, context)
        finally:
            destroy_distributed()

    def _recipe(self) -> Recipe:
        """Return the recipe with all changes; the learning rate follows a changed batch size."""
        recipe = load_recipe(self.recipe)
        changed = with_overrides(recipe, self.overrides)
        if self.overrides.get("optimizer.lr") is not None or changed.run.batch == recipe.run.batch:
            return changed
        rate = recipe.optimizer.lr * changed.run.batch / recipe.run.batch
        print(
            f"learning rate {rate:.4g} instead of {recipe.optimizer.lr:.4g}, for a batch of "
            f"{changed.run.batch} instead of {recipe.run.batch} images; --lr sets another"
        )
        return with_overrides(changed, {"optimizer.lr": rate})

    def _train(
        self,
        model: SSD,
        recipe: Recipe,
        train: Dataset,
        folder: RunFolder,
        context: DistributedContext,
    ) -> TrainingResult:
        val = _open(recipe, recipe.data.val, train.labels) if recipe.data.val else None
        _check_has_objects(train, use_difficult=recipe.data.difficult == "use")
        if val is not None:
            _check_has_objects(val, use_difficult=False)
        if context.is_main and not self.resume:
            self._initialize(model, recipe, train, folder, context)
        with TrainingLog(folder, context, train, recipe.run.epochs) as log:
            if val is not None and val.problems:
                log.on_problems(val.problems)
            reporter = ReporterGroup((log, *self.callbacks))
            trainer = Trainer(model, recipe, train, val, folder, context, reporter)
            if context.is_main:
                self._print_plan(trainer, train, val)
            if self.resume:
                trainer.resume()
            result = trainer.run()
        if context.is_main:
            _export_best(folder, result, train if val is None else val)
        return result

    def _print_plan(self, trainer: Trainer, train: Dataset, val: Dataset | None) -> None:
        """Print the data and the length of the run, with hints for a first run."""
        recipe = trainer.recipe
        steps = len(trainer.loader) * recipe.run.epochs
        print(
            f"training on {_count(len(train) // recipe.data.repeat, 'image')} "
            f"({format_names(train.labels[1:])}): {_count(recipe.run.epochs, 'epoch')}, "
            f"{_count(steps, 'step')}"
        )
        if val is None:
            print("no validation set (--val): the last weights are exported")
        else:
            print(f"evaluating on {_count(len(val), 'image')}")
        if steps < SHORT_RUN_STEPS and not (self.init or recipe.model.backbone):
            print("this is short for training from scratch; increase --epochs or set --init")

    def _initialize(
        self,
        model: SSD,
        recipe: Recipe,
        train: Dataset,
        folder: RunFolder,
        context: DistributedContext,
    ) -> None:
        """Load initial weights, which other processes receive from this one; start the folder."""
        if recipe.model.backbone:
            from realtime_ssd_training.models.backbones import load_backbone

            images = partial(_spread_images, train)
            loaded, total = load_backbone(model, recipe.model.backbone, images)
            print(f"loaded {loaded} of {total} backbone tensors from pretrained weights")
        if self.init:
            _load_initial_weights(model, self.init, train)
        folder.start()
        folder.write_config(
            {
                "processes": context.world_size,
                "device": str(context.device),
                "labels": model.spec.labels,
                "init": str(self.init) if self.init else None,
                "recipe": to_dict(recipe),
            }
        )


def _without_absent_backbone(recipe: Recipe, *, announce: bool) -> Recipe:
    """Return a recipe without an optional backbone that would have to be downloaded.

    Args:
        recipe: The recipe.
        announce: Whether to print what is lost.
    """
    if not recipe.model.backbone_optional:
        return recipe
    from realtime_ssd_training.models.backbones import is_backbone_present

    if is_backbone_present(recipe.model.backbone, recipe.model.name):
        return recipe
    if announce:
        print(
            f"the backbone starts with random weights, which takes several times as many epochs; "
            f"--backbone {recipe.model.backbone} downloads pretrained ones (3 MB)"
        )
    return with_overrides(recipe, {"model.backbone": "", "model.backbone_optional": False})


def _load_initial_weights(model: SSD, path: Path, train: Dataset) -> None:
    """Load the weights of a detector that fit, and print what starts anew."""
    from realtime_ssd_training.importers.starting_point import load_initial_weights

    result = load_initial_weights(model, path, lambda: _spread_images(train))
    print(f"loaded {result.loaded} of {result.total} tensors from {path}")
    if result.classes:
        print(f"scores taken over for {format_names(result.classes)}")
    if result.new_layers:
        print(f"new, with random weights: {', '.join(result.new_layers)}")


def _spread_images(dataset: Dataset, limit: int = 64) -> list[Image]:
    """Read up to `limit` images from all parts of a dataset, skipping unreadable ones."""
    indices = range(0, len(dataset), max(1, len(dataset) // limit))[:limit]
    images = []
    for index in indices:
        with suppress(RealtimeSSDError):
            images.append(dataset[index].image)
    return images


def _write_preview(model: SSD, recipe: Recipe, train: Dataset, path: Path) -> None:
    from realtime_ssd_training.engine.preview import write_preview

    if train.problems:
        print(summarize(train.problems))
    write_preview(path, model, recipe, train)
    print(f"{path}: augmented samples with their matched default boxes")


def _export_best(folder: RunFolder, result: TrainingResult, dataset: Dataset) -> None:
    """Export the best weights of a finished run, or print how to resume a stopped one.

    Args:
        folder: Folder of the run.
        result: End of the run.
        dataset: Images to verify the exported model on.
    """
    if result.stop_signal:
        print(
            f"stopped after {_count(result.epochs, 'complete epoch')}; the state is saved in "
            f"{folder.last}; continue with the same command and --resume"
        )
        return
    from realtime_ssd_training.export import export_onnx, first_images

    export_onnx(load_model(folder.best), folder.onnx, photos=first_images(dataset))
    best = read_checkpoint(folder.best).metadata
    score = f"mAP {best['score']:.4f} in " if best["score"] is not None else ""
    print(f"{folder.onnx}: {score}epoch {best['epoch']} of {result.epochs}")


def _build_model(recipe: Recipe, labels: Sequence[str]) -> SSD:
    """Build the network with random weights determined by the seed."""
    torch.manual_seed(recipe.run.seed)
    try:
        return create(recipe.model.name, labels, **recipe.model.options)
    except UsageError:
        raise
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"invalid options {recipe.model.options} of model '{recipe.model.name}': {error}"
        ) from error


def _open_training_set(recipe: Recipe) -> Dataset:
    data = recipe.data
    if not data.train:
        raise UsageError(f"recipe '{recipe.name}' names no training set; set `data`")
    return _open(recipe, data.train, data.labels, repeat=data.repeat)


def _open(recipe: Recipe, text: str, labels: Sequence[str], repeat: int = 1) -> Dataset:
    data = recipe.data
    return open_datasets(
        text, labels or None, remap=data.remap, classes=data.classes or None, repeat=repeat
    )


def _check_has_objects(dataset: Dataset, *, use_difficult: bool) -> None:
    """Raise an error if a dataset has no object to train or evaluate on.

    Args:
        dataset: The dataset.
        use_difficult: Whether difficult objects are used.
    """
    annotations = (dataset.annotation(index) for index in range(len(dataset)))
    if not any((~a.crowd & (~a.difficult | use_difficult)).any() for a in annotations):
        names = format_names(dataset.labels[1:])
        raise UsageError(
            f"'{dataset.name}' has no usable object of the classes {names}; "
            "check its annotations, `classes` and `remap`"
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
