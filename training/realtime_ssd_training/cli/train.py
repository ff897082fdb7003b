"""`realtime-ssd train`: train a model from a recipe."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["train"]


def train(
    recipe: str,
    *,
    output: Path,
    data: str | None = None,
    val: str | None = None,
    classes: str | None = None,
    remap: str | None = None,
    resume: bool = False,
    init: Path | None = None,
    backbone: str | None = None,
    freeze: str | None = None,
    epochs: int | None = None,
    batch: int | None = None,
    accumulate: int | None = None,
    lr: float | None = None,
    seed: int | None = None,
    workers: int | None = None,
    amp: str | None = None,
    sync_batch_norm: bool = False,
    patience: int | None = None,
    compile: bool = False,  # noqa: A002 - the option's name
    device: str = "auto",
    preview: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Train a model and export its best weights to ONNX.

    Ctrl+C or SIGTERM stop the training at any time: the state is saved, the exit status is
    128 + signal, and the same command with `--resume` continues the run with the same result.
    Several GPUs: `torchrun --nproc-per-node 4 -m realtime_ssd train ...`.

    Args:
        recipe: A TOML file, or the name of a recipe of the program: bccd, coco_ssd300,
            coco_ssd300_torchvision, coco_ssd512, coco_ssdlite320, custom, demo, voc_ssd300,
            voc_ssd512.
        output: Folder of the run.
        data: Training set: coco:ANNOTATIONS.json:IMAGES, voc:ROOT[:SPLIT], yolo:DIR[:SPLIT],
            csv:FILE[:IMAGES[:SPLIT]] or demo:FIRST-LAST; several joined by " + "; the
            recipe's by default.
        val: Validation set, in the same form; the recipe's by default.
        classes: Classes to keep, as in "person,car", by their new names; all by default.
        remap: New names of classes, as in "van=car,lorry=truck".
        resume: Continue the run in the output folder.
        init: Detector to start from: a checkpoint of this program, or any file that
            `realtime-ssd import` reads without options; layers that do not fit, such as the score
            heads of other classes, start with random weights.
        backbone: Pretrained weights of the backbone instead of the recipe's: a file (.tflite,
            .pth, .caffemodel, .safetensors), URL#SHA256, "imagenet" or "coco" (Google's, which are
            downloaded and verified), or "none".
        freeze: "backbone" trains only the extra layers and the heads.
        epochs: Passes over the training set; the recipe's number by default.
        batch: Images per step over all processes, by default the recipe's; without --lr the
            learning rate is scaled with it.
        accumulate: Parts of a batch that pass through the network one after the other, for less
            memory.
        lr: Learning rate; the recipe's by default.
        seed: Seed of weights, order and augmentation; the recipe's by default.
        workers: Processes that load data, by default the recipe's number, or one per core and at
            most 8.
        amp: Precision of the forward pass, by default the recipe's: none, bf16, fp16, or auto,
            which is bf16 on GPUs that have it.
        sync_batch_norm: Average batch normalization over all GPUs.
        patience: Epochs without a better score after which the run ends.
        compile: Compile the network with torch.compile first, which takes half a minute or more;
            on CPUs it has not made steps faster.
        device: auto, cpu, cuda or cuda:NUMBER.
        preview: Write a sheet of augmented samples with their matched default boxes to this image
            instead of training.
        overwrite: Replace existing files; a run in the output folder starts again.
    """
    _check_packages(recipe, data, val, preview=preview is not None)

    from realtime_ssd_training.data.classes import parse_classes, parse_remap
    from realtime_ssd_training.training_run import TrainingRun, recipe_changes

    changes = recipe_changes(
        {
            "data": data,
            "val": val,
            "classes": parse_classes(classes),
            "remap": parse_remap(remap),
            "backbone": backbone,
            "freeze": freeze,
            "epochs": epochs,
            "batch": batch,
            "accumulate": accumulate,
            "lr": lr,
            "seed": seed,
            "workers": workers,
            "amp": amp,
            "compile": compile or None,
            "sync_batch_norm": sync_batch_norm or None,
            "patience": patience,
        }
    )
    result = TrainingRun(
        recipe, output, changes, resume=resume, overwrite=overwrite, init=init, device=device
    ).run(preview)
    if result.stop_signal:
        sys.exit(128 + result.stop_signal)


def _check_packages(recipe: str, data: str | None, val: str | None, *, preview: bool) -> None:
    """Check that all packages this run imports are installed.

    Args:
        recipe: File or name of the recipe.
        data: Training set, or None for the recipe's.
        val: Validation set, or None for the recipe's.
        preview: Whether only the preview is written.

    Raises:
        RealtimeSSDError: If a package is missing.
        UsageError: If the recipe is invalid.
    """
    from realtime_ssd.core.extras import require

    packages = ["torch", "msgspec"]
    if sys.version_info < (3, 11):
        packages.append("tomli")
    if not preview:
        packages += ["safetensors", "matplotlib", "tensorboard"]
    require("train", *packages, purpose="training")

    from realtime_ssd_training.data.concat import split_specs
    from realtime_ssd_training.data.dataset_factory import required_packages
    from realtime_ssd_training.recipe import load_recipe

    loaded = load_recipe(recipe)
    val = val or loaded.data.val
    texts = [data or loaded.data.train, "" if preview else val]
    packages = [p for text in texts for spec in split_specs(text) for p in required_packages(spec)]
    if val and not preview and loaded.run.metric == "coco":
        packages.append("faster_coco_eval")
    require("train", *packages, purpose="training")
