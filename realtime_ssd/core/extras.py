"""Optional dependencies: checked before any work that requires them starts."""

from __future__ import annotations

from importlib.util import find_spec

from realtime_ssd.core.errors import RealtimeSSDError

__all__ = ["missing_packages", "require"]


def missing_packages(*packages: str) -> list[str]:
    """Return those of some packages, by import name, that are not installed; import none."""
    return [package for package in dict.fromkeys(packages) if not _is_installed(package)]


def require(extra: str, *packages: str, purpose: str, alternative: str = "") -> None:
    """Raise an error if packages of an extra are not installed.

    Args:
        extra: Name of the extra that installs them.
        packages: Import names.
        purpose: The action that requires them, as the subject of a sentence.
        alternative: Another remedy, as in "set `metric` to voc".

    Raises:
        RealtimeSSDError: If a package is missing; the message has the command that installs it.
    """
    missing = missing_packages(*packages)
    if missing:
        names = ", ".join(f"'{package}'" for package in missing)
        remedy = f"run pip install 'realtime-ssd[{extra}]'"
        remedy += f" or {alternative}" if alternative else ""
        raise RealtimeSSDError(f"{purpose} requires {names}; {remedy}")


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # the parent of a dotted name
        return False
    except ValueError:  # imported, but without an import specification
        return True
