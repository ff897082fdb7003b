"""`realtime-ssd models`: what can be run, and what can be fetched."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

__all__ = ["app"]

app = App(name="models", help="List the models that are here, and fetch official ones.")


@app.default
@app.command(name="list")
def list_models() -> None:
    """List the bundled model, the user's own and the official ones."""
    from realtime_ssd.zoo import BUNDLED, OFFICIAL, local_models

    print("bundled:")
    print(f"  {BUNDLED.stem}  {_about(BUNDLED)}")
    own = local_models()
    print("local:" if own else "local: none")
    for name, path in own.items():
        print(f"  {name}  {_about(path)}")
    print("official (realtime-ssd models pull NAME):")
    for name, model in OFFICIAL.items():
        here = "  (here)" if name in own else ""
        print(f"  {name}  {model.about}, sha256 {model.sha256}...{here}")


@app.command
def pull(name: str) -> None:
    """Fetch an official model, check its SHA-256 and bring it into the program's form.

    Args:
        name: Name as `realtime-ssd models` lists it.
    """
    from realtime_ssd.zoo import pull as fetch

    print(f"{fetch(name)}: ready; use it with --model {name}")


def _about(path: Path) -> str:
    from realtime_ssd.core.errors import ModelError
    from realtime_ssd.core.files import sha256_of
    from realtime_ssd.core.spec import read_spec

    try:
        spec = read_spec(path)
        digest = sha256_of(path)[:8]
    except (ModelError, OSError) as error:
        return f"cannot be used: {error}"
    known = len(spec.labels) - (spec.background is not None)
    return (
        f"{spec.input.width}x{spec.input.height}, {known} classes, "
        f"{path.stat().st_size / 2**20:.1f} MiB, sha256 {digest}..."
    )
