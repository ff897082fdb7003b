"""A training recipe: everything that decides what a run does, read from a TOML file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from realtime_ssd.errors import UsageError

__all__ = [
    "DataPart",
    "LossPart",
    "ModelPart",
    "OptimizerPart",
    "Recipe",
    "RunPart",
    "SchedulePart",
    "as_dict",
    "from_dict",
    "load_recipe",
    "recipe_names",
]

FOLDER = Path(__file__).parent / "recipes"

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class ModelPart:
    """Which network is trained.

    Attributes:
        name: Name in `training.models.names()`.
        options: Options of that network.
        backbone: Weights to start the backbone from: a path, or "URL#sha256".
        norm: Whether batch statistics are learned, or frozen as they are at the start.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    backbone: str = ""
    norm: Literal["learned", "frozen"] = "learned"


@dataclass(frozen=True, slots=True)
class DataPart:
    """What it is trained on; a run may name other sets than the recipe does.

    Attributes:
        train: Data set to train on, as `open_dataset` reads it; several joined by " + ".
        val: Data set to score on.
        labels: Class names with "background" first; empty takes those of the training set.
        remap: New names of classes by their old ones; several may get the same name.
        only: Classes to keep, by their new names; empty keeps all.
        difficult: Whether difficult objects are learned or left out.
        repeat: Passes over the training set in one epoch.
    """

    train: str = ""
    val: str = ""
    labels: tuple[str, ...] = ()
    remap: dict[str, str] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    difficult: Literal["use", "ignore"] = "use"
    repeat: int = 1


@dataclass(frozen=True, slots=True)
class LossPart:
    """Parameters of `MultiBoxLoss`."""

    iou_threshold: float = 0.5
    negatives: float = 3.0
    alpha: float = 1.0
    first: Literal["bipartite", "forced"] = "bipartite"


@dataclass(frozen=True, slots=True)
class OptimizerPart:
    """How weights move.

    Attributes:
        name: "sgd" or "adamw".
        lr: Learning rate for a batch of `RunPart.batch` images.
        momentum: Momentum of SGD, first beta of AdamW.
        weight_decay: Decay of convolution weights.
        decay_all: Whether biases and normalisation decay too, as in the Caffe recipes.
        clip: Largest length of the gradient; 0 for no limit.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay_all: bool = True
    clip: float = 0.0


@dataclass(frozen=True, slots=True)
class SchedulePart:
    """How the learning rate moves.

    Attributes:
        kind: "multistep" divides it at milestones, "cosine" lets it sink to `final` of itself.
        warmup: Steps over which it grows linearly from `start` of itself.
        start: Share of the learning rate at the first step.
        milestones: Epochs at which `gamma` multiplies it.
        gamma: See `milestones`.
        final: Share of the learning rate at the last step of "cosine".
    """

    kind: Literal["multistep", "cosine"] = "multistep"
    warmup: int = 0
    start: float = 0.001
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    final: float = 0.0


@dataclass(frozen=True, slots=True)
class RunPart:
    """How the run goes.

    Attributes:
        epochs: Passes over the data.
        batch: Images of a step, over all processes.
        seed: Of weights, order and augmentation.
        amp: Precision of the forward pass.
        channels_last: Whether tensors keep the channels of a pixel together.
        compile: Whether `torch.compile` translates the network.
        ema: Decay of the moving average of the weights that is scored and kept; 0 for none.
        workers: Processes that load data.
        evaluate_every: Epochs between two scorings.
        metric: What is scored.
    """

    epochs: int = 1
    batch: int = 32
    seed: int = 0
    amp: Literal["none", "bf16", "fp16"] = "none"
    channels_last: bool = True
    compile: bool = False
    ema: float = 0.0
    workers: int = 2
    evaluate_every: int = 1
    metric: Literal["voc", "voc07", "coco"] = "voc"


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole recipe.

    Attributes:
        name: Short name.
        description: What it trains and where its numbers come from.
        model: Which network.
        data: Which data.
        augment: Changes to the defaults of `SSDAugmentation`.
        loss: Parameters of the loss.
        optimizer: How weights move.
        schedule: How the learning rate moves.
        run: How the run goes.
    """

    name: str
    model: ModelPart
    description: str = ""
    data: DataPart = field(default_factory=DataPart)
    augment: dict[str, Any] = field(default_factory=dict)
    loss: LossPart = field(default_factory=LossPart)
    optimizer: OptimizerPart = field(default_factory=OptimizerPart)
    schedule: SchedulePart = field(default_factory=SchedulePart)
    run: RunPart = field(default_factory=RunPart)


def recipe_names() -> tuple[str, ...]:
    """List the recipes that come with the program."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def load_recipe(text: str) -> Recipe:
    """Read a recipe.

    Args:
        text: Name of one that comes with the program, or a TOML file.

    Raises:
        UsageError: If there is no such recipe, or something in it does not fit.

    Example:
        >>> load_recipe("demo").model.name
        'ssd_mobilenet_v1_fpn'
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    path = Path(text) if text.endswith(".toml") else FOLDER / f"{text}.toml"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise UsageError(
            f"there is no recipe '{text}'; give a TOML file or one of {', '.join(recipe_names())}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the recipe '{path}' is no TOML file: {error}") from None
    return from_dict({"name": path.stem, **data}, str(path))


def as_dict(recipe: Recipe) -> dict[str, Any]:
    """Give a recipe as plain values, ready for JSON; `from_dict` reads them back."""
    return asdict(recipe)


def from_dict(data: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Build a recipe from plain values.

    Args:
        data: Values by name, tables as mappings.
        where: Name of the file, for messages.

    Raises:
        UsageError: If a name is unknown or missing, or a value does not fit.
    """
    return _build(Recipe, data, where)


def _build(kind: type[Part], data: Mapping[str, Any], where: str) -> Part:
    hints = get_type_hints(kind)
    known = {item.name for item in fields(kind)}  # type: ignore[arg-type]
    for key in data:
        if key not in known:
            raise UsageError(f"'{where}' has no entry '{key}'; it has {', '.join(sorted(known))}")
    values = {key: _value(hints[key], value, f"{where}: {key}") for key, value in data.items()}
    try:
        return kind(**values)
    except TypeError:
        raise UsageError(f"'{where}' lacks an entry; every recipe needs model.name") from None


def _value(kind: Any, value: Any, where: str) -> Any:
    """Check one value against its declared type."""
    origin = get_origin(kind) or kind
    if is_dataclass(origin) and isinstance(value, Mapping):
        return _build(origin, value, where)  # type: ignore[arg-type]
    if origin is Literal and value in get_args(kind):
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_value(get_args(kind)[0], item, where) for item in value)
    if origin is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if origin in (int, str, bool, dict) and type(value) is origin:
        return dict(value) if origin is dict else value
    wanted = " or ".join(map(repr, get_args(kind))) if origin is Literal else origin.__name__
    raise UsageError(f"'{where}' is {value!r}; it must be {wanted}")
