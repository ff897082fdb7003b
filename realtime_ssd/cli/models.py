"""`realtime-ssd models`: installed models, and official ones that can be pulled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

if TYPE_CHECKING:
    from realtime_ssd.core.spec import ModelSpec

__all__ = ["app"]

app = App(
    name="models",
    help="List, pull, add and remove models.",
    help_epilogue="Example: realtime-ssd models info street",
)


@app.default
@app.command(name="list", help_epilogue="Example: realtime-ssd models list")
def list_models() -> None:
    """List the bundled model, the user's own and the official ones."""
    from realtime_ssd.core.printable import printable
    from realtime_ssd.zoo import BUNDLED, OFFICIAL, local_models

    print("bundled:")
    print(f"  {BUNDLED.stem}  {_describe(BUNDLED)}")
    local = local_models()
    print("local:" if local else "local: none")
    for name, path in local.items():
        print(f"  {printable(name)}  {_describe(path)}")
    print("official (realtime-ssd models pull NAME):")
    for name, model in OFFICIAL.items():
        installed = "  (installed)" if name in local else ""
        digest = f"sha256 {model.sha256[:16]}..." if model.sha256 else "no published sha256"
        print(f"  {name}  {model.about}, {digest}{installed}")


@app.command(help_epilogue="Example: realtime-ssd models info street")
def info(name: str) -> None:
    """Show classes, input, thresholds, license and origin of a model.

    Args:
        name: Name as `realtime-ssd models` lists it, or ONNX file.
    """
    from realtime_ssd.core.printable import printable
    from realtime_ssd.zoo import OFFICIAL, find_model, local_models

    if name in OFFICIAL and name not in local_models():
        rows = [("about", OFFICIAL[name].about), *_provenance(name, None)]
        rows.append(("file", f"not installed; run realtime-ssd models pull {name}"))
    else:
        path, _ = find_model(name)
        rows = _rows(name, path)
    for title, text in rows:
        print(f"{title:<14}{printable(text)}")


@app.command(help_epilogue="Example: realtime-ssd models pull ssd_mobilenet_v1_coco")
def pull(name: str, *, from_: Annotated[Path | None, Parameter(name="--from")] = None) -> None:
    """Download an official model, verify its SHA-256 and convert it for this program.

    Args:
        name: Name as `realtime-ssd models` lists it.
        from_: The published file, downloaded by other means, for a machine without network; by
            default it is downloaded.
    """
    from realtime_ssd.zoo import pull as pull_model

    print(f"{pull_model(name, from_)}: ready; use it with --model {name}")


@app.command(help_epilogue="Example: realtime-ssd models add cars.onnx --name cars-v2")
def add(
    file: Path,
    *,
    name: str = "",
    overwrite: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Copy a model into the folder of models, so that --model finds it by name.

    Args:
        file: ONNX file of this program, as `train`, `export` and `import` write it.
        name: Name of the model; that of the file by default.
        overwrite: Replace a model of this name.
    """
    from realtime_ssd.zoo import add_model

    path = add_model(file, name, overwrite=overwrite)
    print(f"{path}: ready; use it with --model {path.stem}")


@app.command(help_epilogue="Example: realtime-ssd models remove cars-v2")
def remove(name: str) -> None:
    """Delete a pulled or added model.

    Args:
        name: Name as `realtime-ssd models` lists it.
    """
    from realtime_ssd.zoo import remove_model

    print(f"{remove_model(name)}: removed")


def _describe(path: Path) -> str:
    from realtime_ssd.core.errors import ModelError
    from realtime_ssd.core.files import sha256_of
    from realtime_ssd.core.spec import read_spec

    try:
        spec = read_spec(path)
        digest = sha256_of(path)[:8]
    except (ModelError, OSError) as error:
        return f"cannot be used: {error}"
    count = len(_classes(spec))
    return (
        f"{spec.input.width}x{spec.input.height}, {count} class{'es' * (count != 1)}, "
        f"{path.stat().st_size / 2**20:.1f} MiB, sha256 {digest}..."
    )


def _classes(spec: ModelSpec) -> list[str]:
    return [label for column, label in enumerate(spec.labels) if column != spec.background]


def _rows(name: str, path: Path) -> list[tuple[str, str]]:
    """Return what there is to know about an installed model, as titles and texts."""
    from realtime_ssd.core.files import sha256_of
    from realtime_ssd.core.spec import read_spec

    spec = read_spec(path)
    classes, size, limits = _classes(spec), spec.input, spec.thresholds
    fit = "stretched to it" if size.resize == "warp" else "fitted into it"
    return [
        ("model", spec.name),
        ("about", spec.description or "no description"),
        ("classes", f"{len(classes)}: {', '.join(classes)}"),
        ("input", f"{size.width} x {size.height} pixels, {size.channels}, images are {fit}"),
        ("default boxes", str(spec.num_boxes or "decoded by the network")),
        (
            "thresholds",
            f"score {limits.score_threshold:g}, IoU {limits.iou_threshold:g}, best "
            f"{limits.pre_nms_top_k} candidates of a class, at most {limits.max_detections} "
            "detections",
        ),
        *_provenance(name, spec),
        ("file", f"{path}, {path.stat().st_size / 2**20:.1f} MiB"),
        ("sha256", sha256_of(path)),
    ]


def _provenance(name: str, spec: ModelSpec | None) -> list[tuple[str, str]]:
    from realtime_ssd.zoo import BUNDLED, OFFICIAL

    if name == BUNDLED.stem:
        origin = "part of this program, trained on its synthetic street"
        return [("license", "Apache-2.0"), ("origin", origin)]
    if name in OFFICIAL:
        official = OFFICIAL[name]
        source = f"{official.member} in {official.url}" if official.member else official.url
        return [("license", official.license or "not stated"), ("origin", source)]
    origin = spec.description if spec and spec.description else "not recorded"
    return [("license", "not recorded in the file"), ("origin", origin)]
