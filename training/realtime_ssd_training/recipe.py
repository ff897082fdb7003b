"""Training recipes: every setting of a run, read from a TOML file and validated with msgspec."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field, inspect

from realtime_ssd.core.errors import UsageError

__all__ = [
    "DataConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Recipe",
    "RunConfig",
    "ScheduleConfig",
    "differences",
    "from_dict",
    "load_recipe",
    "recipe_names",
    "to_dict",
    "with_overrides",
]

FOLDER = Path(__file__).parent / "recipes"

_LARGEST = sys.float_info.max  # excludes infinity, which `Meta` does not accept as a limit
PositiveInt = Annotated[int, Meta(ge=1)]
NonNegativeInt = Annotated[int, Meta(ge=0)]
PositiveFloat = Annotated[float, Meta(gt=0, le=_LARGEST)]
NonNegativeFloat = Annotated[float, Meta(ge=0, le=_LARGEST)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Decay = Annotated[float, Meta(ge=0, le=0.999999)]

CHANGEABLE_ON_RESUME = frozenset(
    {"name", "description", "model.backbone", "model.backbone_optional", "data.train", "data.val"}
    | {f"run.{key}" for key in ("epochs", "workers", "compile", "channels_last", "patience")}
    | {"run.evaluate_every", "run.metric"}
)
"""Keys that may differ when a run is resumed. None of them affects a training step, except that
`run.epochs` moves the end of a cosine schedule."""


class ModelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The network.

    Attributes:
        name: One of `realtime_ssd_training.models.names()`.
        options: Keyword arguments of that network.
        backbone: Pretrained backbone weights: a path, "URL#SHA256", "imagenet" or "coco"; empty for
            random weights.
        backbone_optional: Whether the weights are random if the backbone would have to be
            downloaded.
        norm: "learned" trains batch normalization; "frozen" keeps its initial state.
        freeze: "backbone" keeps the initial weights of the backbone, without its extra layers.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    backbone: str = ""
    backbone_optional: bool = False
    norm: Literal["learned", "frozen"] = "learned"
    freeze: Literal["nothing", "backbone"] = "nothing"


class DataConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The datasets.

    Attributes:
        train: Training set in the notation of `open_dataset`; several are joined by " + ".
        val: Validation set.
        labels: Class names, "background" first; empty for those of the training set.
        remap: New class name for each old one; several old names may map to the same new one.
        classes: Classes to keep, after `remap`; empty keeps all.
        difficult: Whether difficult objects are trained on or ignored.
        repeat: Passes over the training set per epoch.
    """

    train: str = ""
    val: str = ""
    labels: tuple[str, ...] = ()
    remap: dict[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    difficult: Literal["use", "ignore"] = "use"
    repeat: PositiveInt = 1


class LossConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of `MultiBoxLoss`.

    Attributes:
        iou_threshold: Minimum IoU of a default box with the object it is matched to.
        negatives: Maximum number of hard negatives per matched default box of an image.
        alpha: Weight of the localization loss.
        first: How each object gets its best default box; see `match`.
    """

    iou_threshold: Fraction = 0.5
    negatives: NonNegativeFloat = 3.0
    alpha: NonNegativeFloat = 1.0
    first: Literal["bipartite", "forced"] = "bipartite"


class OptimizerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The optimizer.

    Attributes:
        name: "sgd" or "adamw".
        lr: Learning rate for a batch of `RunConfig.batch` images.
        momentum: Momentum of SGD, or the first beta of AdamW.
        weight_decay: Weight decay.
        decay_all: Whether biases and normalization layers decay too, as in torchvision's recipes.
        bias_lr: Learning rate factor of biases; 2 in the Caffe recipes.
        clip: Maximum gradient norm; 0 disables clipping.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: PositiveFloat = 1e-3
    momentum: Decay = 0.9
    weight_decay: NonNegativeFloat = 5e-4
    decay_all: bool = True
    bias_lr: PositiveFloat = 1.0
    clip: NonNegativeFloat = 0.0


class ScheduleConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The learning rate schedule.

    Attributes:
        kind: "multistep" multiplies the rate by `gamma` at each milestone; "cosine" decays it to
            `final` times its initial value.
        warmup: Steps of linear warm-up, limited to a quarter of the run.
        start: Factor of the learning rate at the first warm-up step.
        milestones: Epochs at which "multistep" multiplies the rate by `gamma`.
        gamma: See `milestones`.
        final: Factor of the learning rate at the end of "cosine".
    """

    kind: Literal["multistep", "cosine"] = "multistep"
    warmup: NonNegativeInt = 0
    start: Fraction = 0.001
    milestones: tuple[PositiveInt, ...] = ()
    gamma: Fraction = 0.1
    final: Fraction = 0.0


class RunConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Length, precision and evaluation of the run.

    Attributes:
        epochs: Number of epochs.
        batch: Images per step over all processes.
        seed: Seed of weights, order and augmentation.
        accumulate: Parts of a batch that pass through the network one after the other, for less
            memory; batch normalization sees one part at a time.
        amp: Precision of the forward pass; "auto" is bf16 on GPUs that have it, else none.
        channels_last: Whether tensors use the channels-last memory format.
        compile: Whether to compile the network with `torch.compile`.
        ema: Decay of the exponential moving average (EMA) of the weights, which is evaluated and
            kept instead of the weights; 0 disables it.
        workers: Data loading processes of each training process; "auto" is one per core, at most 8.
        sync_batch_norm: Whether batch normalization averages over all GPUs.
        patience: Epochs without a better score after which the run ends; 0 never ends it early.
        evaluate_every: Epochs between evaluations.
        metric: Validation metric.
    """

    epochs: PositiveInt = 1
    batch: PositiveInt = 32
    seed: NonNegativeInt = 0
    accumulate: PositiveInt = 1
    amp: Literal["auto", "none", "bf16", "fp16"] = "auto"
    channels_last: bool = True
    compile: bool = False
    ema: Decay = 0.0
    workers: NonNegativeInt | Literal["auto"] = "auto"
    sync_batch_norm: bool = False
    patience: NonNegativeInt = 0
    evaluate_every: PositiveInt = 1
    metric: Literal["voc", "voc07", "coco"] = "voc"


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A complete recipe.

    Attributes:
        name: Short name; that of the file unless the file sets another.
        description: What it trains and the source of its settings.
        model: The network.
        data: The datasets.
        augment: Overrides of the defaults of `SSDAugmentation`.
        loss: The loss.
        optimizer: The optimizer.
        schedule: The learning rate schedule.
        run: Length, precision and evaluation of the run.
    """

    name: str
    model: ModelConfig
    description: str = ""
    data: DataConfig = DataConfig()
    augment: dict[str, Any] = field(default_factory=dict)
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    run: RunConfig = RunConfig()


def recipe_names() -> tuple[str, ...]:
    """Return the names of the bundled recipes."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def load_recipe(name: str) -> Recipe:
    """Read a recipe.

    Args:
        name: Name of a bundled recipe, or path of a TOML file.

    Raises:
        UsageError: If the recipe does not exist or is invalid.

    Example:
        >>> load_recipe("demo").model.name
        'ssd_mobilenet_v1_fpn'
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    try:
        data = msgspec.toml.decode(path.read_bytes(), type=dict[str, Any])
    except OSError:
        raise UsageError(
            f"recipe '{name}' does not exist; use a TOML file or one of {', '.join(recipe_names())}"
        ) from None
    except ValueError as error:
        raise UsageError(f"the recipe '{path}' is not a valid TOML file: {error}") from None
    return from_dict({"name": path.stem, **data}, str(path))


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as plain values that JSON can hold; `from_dict` reverses it."""
    plain: dict[str, Any] = msgspec.to_builtins(recipe)
    return plain


def from_dict(data: Mapping[str, Any], source: str = "recipe") -> Recipe:
    """Build a recipe from plain values.

    Args:
        data: Values by key; sections are mappings.
        source: File name for error messages.

    Raises:
        UsageError: If a key is unknown or missing, or a value is invalid.
    """
    try:
        return msgspec.convert(data, Recipe)
    except msgspec.ValidationError as error:
        raise UsageError(_explain(error, data, source)) from None


def with_overrides(recipe: Recipe, overrides: Mapping[str, Any]) -> Recipe:
    """Return a recipe with some values replaced.

    Args:
        recipe: The recipe.
        overrides: New values by dotted key, such as "run.epochs"; None keeps the old value.

    Raises:
        UsageError: If a key is unknown or a value is invalid.
    """
    data = to_dict(recipe)
    for key, value in overrides.items():
        if value is not None:
            section, _, name = key.partition(".")
            data[section] = {**data.get(section, {}), name: value} if name else value
    try:
        return msgspec.convert(data, Recipe)
    except msgspec.ValidationError as error:
        raise UsageError(_explain(error, data)) from None


def differences(first: Recipe, second: Recipe) -> list[str]:
    """Return the dotted keys that differ between two recipes and must not differ on resume."""
    # JSON turns tuples into lists, so that a recipe equals one read from a checkpoint.
    old, new = (_flatten(json.loads(json.dumps(to_dict(recipe)))) for recipe in (first, second))
    changed = {key for key in {*old, *new} if old.get(key) != new.get(key)}
    return sorted(changed - CHANGEABLE_ON_RESUME)


def _flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _explain(error: msgspec.ValidationError, data: Mapping[str, Any], source: str = "") -> str:
    """Return one sentence with file, key, value and what is allowed.

    Args:
        error: Error of msgspec, such as "Expected `int` >= 1 - at `$.run.epochs`".
        data: The rejected values.
        source: File name; empty where the values are keyword arguments.
    """
    reason, _, path = str(error).partition(" - at `$")
    keys = re.match(r"(?:\.(\w+))*", path)
    location = keys[0].strip(".").split(".") if keys and keys[0] else []
    within = f" in '{source}'" if source else ""
    if unknown := re.match(r"Object contains unknown field `(.*)`$", reason):
        return _explain_unknown_key(location, unknown[1], within)
    if missing := re.match(r"Object missing required field `(.*)`$", reason):
        key = ".".join([*location, missing[1]])
        return f"'{key}' is missing{within}; every recipe needs 'name' and 'model.name'"
    value: Any = data
    for key in location:
        value = value[key]
    label = f"'{'.'.join(location)}'{within}" if source else f"`{location[-1]}`"
    return f"{label} must be {_describe(_type_at(location))}, not {value!r}"


def _explain_unknown_key(section: Sequence[str], key: str, within: str) -> str:
    node = _type_at(section)
    known = sorted(item.encode_name for item in node.fields)  # type: ignore[attr-defined]
    close = get_close_matches(key, known, n=1)
    hint = f" (did you mean '{'.'.join([*section, close[0]])}'?)" if close else ""
    name = ".".join([*section, key])
    return f"'{name}'{within} is not a known key{hint}; the keys are {', '.join(known)}"


def _type_at(location: Sequence[str]) -> inspect.Type:
    """Return the declared type of a key."""
    node: Any = inspect.type_info(Recipe)
    for key in location:
        node = next(item.type for item in node.fields if item.encode_name == key)
    return node  # type: ignore[no-any-return]


def _describe(node: inspect.Type) -> str:
    """Return the values that a type allows, in TOML's terms."""
    if isinstance(node, inspect.LiteralType):
        return f"one of {', '.join(map(repr, node.values))}"
    if isinstance(node, inspect.UnionType):
        numbers = [part for part in node.types if isinstance(part, inspect.IntType)]
        words = [part for part in node.types if isinstance(part, inspect.LiteralType)]
        described = [*map(_describe, numbers), *(repr(v) for part in words for v in part.values)]
        return " or ".join(described)
    if isinstance(node, inspect.IntType | inspect.FloatType):
        limits = [
            f"{name} {limit:g}"
            for name, limit in (("above", node.gt), ("of at least", node.ge), ("at most", node.le))
            if limit not in (None, _LARGEST)
        ]
        kind = "an integer" if isinstance(node, inspect.IntType) else "a finite number"
        return f"{kind} {' and '.join(limits)}"
    if isinstance(node, inspect.VarTupleType):
        return f"an array in which each item is {_describe(node.item_type)}"
    if isinstance(node, inspect.DictType) and isinstance(node.value_type, inspect.StrType):
        return "a table of strings"
    names = {inspect.StrType: "a string", inspect.BoolType: "true or false"}
    return names.get(type(node), "a table")
