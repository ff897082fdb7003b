"""Plug-ins by entry point: how backends, processors, sources, sinks and commands are found.

This package never imports the packages that extend it. An installed distribution registers what it
adds under one of the groups of `GROUPS`; a plug-in is imported when it is first used.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, get_args

from realtime_ssd.core.errors import RealtimeSSDError

__all__ = ["GROUPS", "Group", "load_plugin", "load_plugins", "plugins"]

Group = Literal[
    "annotators",
    "backends",
    "commands",
    "importers",
    "observers",
    "precisions",
    "processors",
    "sinks",
    "sources",
]
GROUPS: tuple[Group, ...] = get_args(Group)
_log = logging.getLogger(__name__)


@cache
def plugins(group: Group) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name, none of them imported.

    The first of two distributions that register the same name wins, with a warning.

    Args:
        group: One of `GROUPS`; the entry-point group is `realtime_ssd.` + `group`.
    """
    by_name: dict[str, EntryPoint] = {}
    for entry in entry_points(group=f"realtime_ssd.{group}"):
        first = by_name.setdefault(entry.name, entry)
        if first.value != entry.value:
            _log.warning(
                "plug-in '%s' of group '%s' is registered twice: %s is used, %s is ignored",
                *(entry.name, entry.group, first.value, entry.value),
            )
    return by_name


def load_plugin(group: Group, name: str) -> Any:
    """Import a plug-in and return the object it registers.

    Args:
        group: One of `GROUPS`.
        name: Name of the entry point.

    Raises:
        KeyError: If no installed distribution registers this name.
        RealtimeSSDError: If the plug-in cannot be imported.
    """
    entry = plugins(group)[name]
    try:
        return entry.load()
    except ImportError as error:
        raise RealtimeSSDError(
            f"plug-in '{name}' of group '{entry.group}' ({entry.value}) cannot be imported: {error}"
        ) from error


@cache
def load_plugins(group: Group) -> dict[str, Any]:
    """Import all plug-ins of a group and return them by name.

    A plug-in that cannot be imported is skipped with a warning.

    Args:
        group: One of `GROUPS`.
    """
    loaded: dict[str, Any] = {}
    for name in plugins(group):
        try:
            loaded[name] = load_plugin(group, name)
        except RealtimeSSDError as error:
            _log.warning("%s", error)
    return loaded
