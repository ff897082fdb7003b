"""A training recipe: everything that decides what a run does, read from a TOML file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from realtime_ssd.core.errors import UsageError

__all__ = [
    "DataPart",
    "LossPart",
    "ModelPart",
    "OptimizerPart",
    "Recipe",
    "RunPart",
    "SchedulePart",
    "as_dict",
    "differences",
    "from_dict",
    "load_recipe",
    "recipe_names",
]

FOLDER = Path(__file__).parent / "recipes"

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class Within:
    """Limits of a number.

    Attributes:
        low: Smallest value.
        high: Largest value.
        above: Whether `low` itself is too small.
    """

    low: float
    high: float = inf
    above: bool = False

    def holds(self, value: float) -> bool:
        """Tell whether a value is a finite number within the limits."""
        enough = value > self.low if self.above else value >= self.low
        return isfinite(value) and enough and value <= self.high

    def __str__(self) -> str:
        least = f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        return least if self.high == inf else f"{least} and at most {self.high:g}"


Count = Annotated[int, Within(1)]
Number = Annotated[int, Within(0)]
Positive = Annotated[float, Within(0, above=True)]
NotNegative = Annotated[float, Within(0)]
Share = Annotated[float, Within(0, 1)]
Decay = Annotated[float, Within(0, 0.999999)]

FREE = frozenset(
    {"name", "description", "model.backbone", "data.train", "data.val", "run.epochs"}
    | {f"run.{name}" for name in ("workers", "compile", "channels_last", "evaluate_every")}
    | {"run.metric"}
)
"""What may differ when a run goes on: none of it decides what a step does to the weights, but for
the end of a cosine schedule, which moves with the epochs."""


@dataclass(frozen=True, slots=True)
class ModelPart:
    """Which network is trained.

    Attributes:
        name: Name in `realtime_ssd_training.models.names()`.
        options: Options of that network.
        backbone: Weights to start the backbone from: a path, or "URL#sha256"; empty for new ones.
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
    repeat: Count = 1


@dataclass(frozen=True, slots=True)
class LossPart:
    """Parameters of `MultiBoxLoss`."""

    iou_threshold: Share = 0.5
    negatives: NotNegative = 3.0
    alpha: NotNegative = 1.0
    first: Literal["bipartite", "forced"] = "bipartite"


@dataclass(frozen=True, slots=True)
class OptimizerPart:
    """How weights move.

    Attributes:
        name: "sgd" or "adamw".
        lr: Learning rate for a batch of `RunPart.batch` images.
        momentum: Momentum of SGD, first beta of AdamW.
        weight_decay: Decay of convolution weights.
        decay_all: Whether biases and normalisation decay too, as in torchvision's recipes.
        bias_lr: Factor of the learning rate for biases; 2 in the Caffe recipes.
        clip: Largest length of the gradient; 0 for no limit.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: Positive = 1e-3
    momentum: Decay = 0.9
    weight_decay: NotNegative = 5e-4
    decay_all: bool = True
    bias_lr: Positive = 1.0
    clip: NotNegative = 0.0


@dataclass(frozen=True, slots=True)
class SchedulePart:
    """How the learning rate moves.

    Attributes:
        kind: "multistep" divides it at milestones, "cosine" lets it sink to `final` of itself.
        warmup: Steps over which it grows linearly from `start` of itself; a quarter of the run
            at most.
        start: Share of the learning rate at the first step.
        milestones: Epochs at which `gamma` multiplies it.
        gamma: See `milestones`.
        final: Share of the learning rate at the last step of "cosine".
    """

    kind: Literal["multistep", "cosine"] = "multistep"
    warmup: Number = 0
    start: Share = 0.001
    milestones: tuple[Count, ...] = ()
    gamma: Share = 0.1
    final: Share = 0.0


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

    epochs: Count = 1
    batch: Count = 32
    seed: Number = 0
    amp: Literal["none", "bf16", "fp16"] = "none"
    channels_last: bool = True
    compile: bool = False
    ema: Decay = 0.0
    workers: Number = 2
    evaluate_every: Count = 1
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


def differences(first: Recipe, second: Recipe) -> list[str]:
    """List the entries in which two recipes differ and that a run has to keep when it goes on.

    Returns:
        Names such as "optimizer.lr".
    """
    return [key for key in _differing(as_dict(first), as_dict(second)) if key not in FREE]


def _differing(first: Mapping[str, Any], second: Mapping[str, Any], above: str = "") -> list[str]:
    found = []
    for key in sorted({*first, *second}):
        one, other = first.get(key), second.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found += _differing(one, other, f"{above}{key}.")
        elif _listed(one) != _listed(other):
            found.append(above + key)
    return found


def _listed(value: Any) -> Any:
    """Make tuples lists, as JSON does."""
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value


def _build(kind: type[Part], data: Mapping[str, Any], where: str) -> Part:
    hints = get_type_hints(kind, include_extras=True)
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
    """Check one value against its declared type and limits."""
    origin = get_origin(kind) or kind
    if origin is Annotated:
        plain, limits = get_args(kind)
        checked = _value(plain, value, where)
        if not limits.holds(checked):
            raise UsageError(f"'{where}' is {value!r}; it must be {limits}")
        return checked
    if is_dataclass(origin) and isinstance(value, Mapping):
        return _build(origin, value, where)  # type: ignore[arg-type]
    plain = origin in (int, str, bool) and type(value) is origin
    if plain or kind is Any or (origin is Literal and value in get_args(kind)):
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_value(get_args(kind)[0], item, where) for item in value)
    if origin is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if origin is dict and isinstance(value, Mapping):
        inner = get_args(kind)[1]
        return {key: _value(inner, item, f"{where}.{key}") for key, item in value.items()}
    raise UsageError(f"'{where}' is {value!r}; it must be {_wanted(kind, origin)}")


def _wanted(kind: Any, origin: Any) -> str:
    """Say what a value has to be, in the words of TOML."""
    if origin is Literal:
        return " or ".join(map(repr, get_args(kind)))
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return words.get(origin, "a list" if origin is tuple else "a table")
