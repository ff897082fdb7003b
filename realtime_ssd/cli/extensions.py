"""Processors, annotators, observers and sinks that are named on the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
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
from realtime_ssd.sinks.publish_targets import display_url
from realtime_ssd.sources import SourceInfo
from realtime_ssd.sources.formats import scheme_of

__all__ = [
    "PlannedSink",
    "create_annotators",
    "create_observers",
    "plan_sinks",
    "processor_factory",
]


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


@dataclass(frozen=True, slots=True)
class PlannedSink:
    """A sink that is named on the command line and not open yet.

    Attributes:
        plugin: What opens it.
        target: Where it writes.
        info: Its source, or the first one if it receives the results of all.
    """

    plugin: SinkPlugin
    target: str
    info: SourceInfo

    def files(self) -> Sequence[Path]:
        """Return the files it will write."""
        return self.plugin.files(self.target, self.info)

    def folders(self) -> Sequence[Path]:
        """Return the folders it will fill; only some plug-ins name them."""
        find: Callable[[str], Sequence[Path]] | None = getattr(self.plugin, "folders", None)
        return () if find is None else find(self.target)

    def add_to(self, group: SinkGroup, *, overwrite: bool) -> None:
        """Open it and add it to a group; errors as in `SinkPlugin.open`."""
        source = self.info.name if self.plugin.per_source else None
        group.add(self.plugin.open(self.target, self.info, overwrite), source)


def plan_sinks(specs: Sequence[str], infos: Sequence[SourceInfo]) -> list[PlannedSink]:
    """Return the named sinks, one per source where the plug-in wants it.

    Args:
        specs: "NAME", "NAME:TARGET" or a file whose suffix selects the format each.
        infos: The sources.

    Raises:
        UsageError: If a sink is not installed, or several sources would share one URL.
    """
    planned = []
    for spec in specs:
        named = spec.partition(":")[0] in plugins("sinks")
        plugin, target = _load("sinks", spec) if named else find_sink(spec)
        chosen = infos if plugin.per_source else infos[:1]
        if len(chosen) > 1 and scheme_of(target):
            raise UsageError(
                f"'{display_url(target)}' is one stream for {len(chosen)} sources; publish each "
                "source in a run of its own"
            )
        planned += [PlannedSink(plugin, target, info) for info in chosen]
    return planned


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
