"""`realtime-ssd train`: train a model as a recipe says."""

from __future__ import annotations

from importlib.util import find_spec
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
    epochs: int | None = None,
    batch: int | None = None,
    lr: float | None = None,
    seed: int | None = None,
    workers: int | None = None,
    amp: str | None = None,
    compile: bool = False,  # noqa: A002 - the option's name
    device: str = "auto",
    preview: Path | None = None,
) -> None:
    """Train a model and export its best weights as ONNX.

    Stop with Ctrl+C or SIGTERM at any time: the state is saved, the exit status is 128 + signal,
    and the same command with `--resume` goes on as if nothing had happened. Several GPUs:
    `torchrun --nproc-per-node 4 -m realtime_ssd train ...`.

    Args:
        recipe: A TOML file, or the name of a recipe that comes with the program: bccd,
            coco_ssd300, coco_ssd300_torchvision, coco_ssd512, coco_ssdlite320, custom, demo,
            voc_ssd300, voc_ssd512.
        output: Folder of the run.
        data: Training set: coco:ANNOTATIONS.json:IMAGES, voc:ROOT[:SPLIT], yolo:DIR[:SPLIT],
            csv:FILE[:IMAGES] or demo:FIRST-LAST; several joined by " + ".
        val: Validation set, written the same way.
        classes: Classes to keep, as in "person,car", by their new names; all by default.
        remap: New names of classes, as in "van=car,lorry=truck".
        resume: Go on with the run in the output folder.
        init: Checkpoint to take all weights from that fit.
        backbone: Pretrained weights of the backbone instead of the recipe's: a file, URL#SHA256,
            or "none".
        epochs: Passes over the data.
        batch: Images of a step over all processes; the learning rate stays as it is.
        lr: Learning rate.
        seed: Of weights, order and augmentation.
        workers: Processes that load data.
        amp: Precision of the forward pass: none, bf16 or fp16.
        compile: Translate the network with torch.compile first. It takes half a minute and more;
            on CPUs it made steps no faster.
        device: auto, cpu, cuda or cuda:NUMBER.
        preview: Write a sheet of augmented samples with their matched default boxes to this image
            and train nothing.
    """
    from realtime_ssd.core.errors import UsageError

    for part in ("torch", "safetensors", "msgspec", "matplotlib", "tensorboard"):
        if find_spec(part) is None:
            raise UsageError(
                f"training needs '{part}'; install it with pip install 'realtime-ssd[train]'"
            )
    from realtime_ssd_training.data.classes import parse_classes, parse_remap
    from realtime_ssd_training.engine.train_command import TrainCommand

    changes = {
        "run.epochs": epochs,
        "run.batch": batch,
        "run.seed": seed,
        "run.workers": workers,
        "run.amp": amp,
        "run.compile": compile or None,
        "optimizer.lr": lr,
        "model.backbone": "" if backbone == "none" else backbone,
        "data.train": data,
        "data.val": val,
        "data.only": parse_classes(classes),
        "data.remap": parse_remap(remap),
    }
    TrainCommand(recipe, output, changes, resume=resume, init=init, device=device).run(preview)
