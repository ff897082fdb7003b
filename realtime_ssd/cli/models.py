"""`realtime-ssd models`: installed models, and official ones that can be pulled."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

__all__ = ["app"]

app = App(name="models", help="List installed models and pull official ones.")


@app.default
@app.command(name="list")
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
        print(f"  {name}  {model.about}, sha256 {model.sha256[:16]}...{installed}")


@app.command
def pull(name: str, *, from_: Annotated[Path | None, Parameter(name="--from")] = None) -> None:
    """Download an official model, verify its SHA-256 and convert it for this program.

    Args:
        name: Name as `realtime-ssd models` lists it.
        from_: The published file, downloaded by other means, for a machine without network.
    """
    from realtime_ssd.zoo import pull as pull_model

    print(f"{pull_model(name, from_)}: ready; use it with --model {name}")


def _describe(path: Path) -> str:
    from realtime_ssd.core.errors import ModelError
    from realtime_ssd.core.files import sha256_of
    from realtime_ssd.core.spec import read_spec

    try:
        spec = read_spec(path)
        digest = sha256_of(path)[:8]
    except (ModelError, OSError) as error:
        return f"cannot be used: {error}"
    classes = len(spec.labels) - (spec.background is not None)
    return (
        f"{spec.input.width}x{spec.input.height}, {classes} class{'es' * (classes != 1)}, "
        f"{path.stat().st_size / 2**20:.1f} MiB, sha256 {digest}..."
    )
