"""`Command`: how a subcommand is registered, in this package or by an entry point."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache

from realtime_ssd.core.errors import RealtimeSSDError
from realtime_ssd.core.registry import load_plugin, plugins

__all__ = ["Command", "commands"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Command:
    """A subcommand; its module is imported only when it is called.

    Attributes:
        target: "module:function", or "module:app" for a group of commands.
        help: One line for the list of commands.
        order: Position in that list; the program's own commands have 0 to 99.
    """

    target: str
    help: str
    order: int = 100


@cache
def commands() -> dict[str, Command]:
    """Return all installed subcommands by name, in the order of the list of commands."""
    found: dict[str, Command] = {}
    for name in plugins("commands"):
        try:
            found[name] = load_plugin("commands", name)
        except RealtimeSSDError as error:
            _log.warning("command '%s' is not available: %s", name, error)
    return dict(sorted(found.items(), key=lambda item: (item[1].order, item[0])))
