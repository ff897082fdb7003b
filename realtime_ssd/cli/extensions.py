"""Processors, annotators, observers and sinks that are named on the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

from realtime_ssd.annotators import Annotator
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.metrics import Observer
from realtime_ssd.core.registry import Group, load_plugin, plugins
from realtime_ssd.pipeline import SinkGroup
from realtime_ssd.pipeline.processing import ProcessorFactory
from realtime_ssd.processors import Processor, ProcessorPlugin
from realtime_ssd.sinks import find_sink
from realtime_ssd.sinks.base import SinkPlugin
from realtime_ssd.sources import SourceInfo

__all__ = ["add_sinks", "create_annotators", "create_observers", "processor_factory"]


def processor_factory(specs: Sequence[str]) -> ProcessorFactory:
    """Return a function that creates the named processors of a source, in order.

    Args:
        specs: "NAME" or "NAME:ARGUMENT" each.

    Raises:
        UsageError: If a processor is not installed.
    """
    chosen: list[tuple[ProcessorPlugin, str]] = [_load("processors", spec) for spec in specs]

    def create(info: SourceInfo) -> list[Processor]:
        return [plugin(info, argument) for plugin, argument in chosen]

    return create


def create_annotators(specs: Sequence[str]) -> list[Annotator]:
    """Return the named annotators; errors as in `processor_factory`."""
    return [create(argument) for create, argument in _load_factories("annotators", specs)]


def create_observers(specs: Sequence[str]) -> list[Observer]:
    """Return the named observers; errors as in `processor_factory`."""
    return [create(argument) for create, argument in _load_factories("observers", specs)]


def add_sinks(
    group: SinkGroup, specs: Sequence[str], infos: Sequence[SourceInfo], *, overwrite: bool
) -> None:
    """Open the named sinks and add them to a group.

    Args:
        group: Group that owns the sinks.
        specs: "NAME", "NAME:TARGET" or a file whose suffix selects the format each.
        infos: The sources.
        overwrite: Whether existing files may be replaced.

    Raises:
        UsageError: If a sink is not installed, or its target is malformed or cannot be written.
    """
    for spec in specs:
        named = spec.partition(":")[0] in plugins("sinks")
        plugin, target = _load("sinks", spec) if named else find_sink(spec)
        _open_sinks(plugin, target, group, infos, overwrite=overwrite)


def _open_sinks(
    plugin: SinkPlugin,
    target: str,
    group: SinkGroup,
    infos: Sequence[SourceInfo],
    *,
    overwrite: bool,
) -> None:
    if not plugin.per_source:
        group.add(plugin.open(target, infos[0], overwrite))
        return
    for info in infos:
        group.add(plugin.open(target, info, overwrite), info.name)


def _load_factories(group: Group, specs: Sequence[str]) -> list[tuple[Callable[[str], Any], str]]:
    return [_load(group, spec) for spec in specs]


def _load(group: Group, spec: str) -> tuple[Any, str]:
    """Return the plug-in of "NAME[:ARGUMENT]" and the argument."""
    name, _, argument = spec.partition(":")
    installed = plugins(group)
    if name not in installed:
        close = get_close_matches(name, installed, n=1)
        known = ", ".join(sorted(installed)) or "none"
        hint = f"did you mean '{close[0]}'?" if close else f"installed: {known}"
        raise UsageError(f"there is no {group[:-1]} '{name}'; {hint}")
    return load_plugin(group, name), argument
