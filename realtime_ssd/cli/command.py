"""`Command`: how a subcommand is registered, in this package or by an entry point."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from realtime_ssd.core.registry import load_plugins

__all__ = ["Command", "commands"]


@dataclass(frozen=True, slots=True)
class Command:
    """A subcommand; its module is imported only when it is called.

    Attributes:
        target: "module:function", or "module:app" for a group of commands.
        help: One line for the list of commands.
        order: Position in that list; the program's own commands have 0 to 99.
        example: A call of the command, shown below its help.
    """

    target: str
    help: str
    order: int = 100
    example: str = ""


@cache
def commands() -> dict[str, Command]:
    """Return all installed subcommands by name, in the order of the list of commands."""
    found: dict[str, Command] = load_plugins("commands")
    return dict(sorted(found.items(), key=lambda item: (item[1].order, item[0])))
