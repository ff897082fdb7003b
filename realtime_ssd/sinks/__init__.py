"""Sinks of results: window, video files, images and JSON lines."""

from __future__ import annotations

from pathlib import Path

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.registry import load_plugins
from realtime_ssd.sinks.base import Sink, SinkPlugin
from realtime_ssd.sources.base import SourceInfo
from realtime_ssd.sources.formats import scheme_of

__all__ = ["Sink", "SinkPlugin", "find_file_sink", "find_sink", "open_sink"]


def find_sink(text: str) -> tuple[SinkPlugin, str]:
    """Return the plug-in that writes to a target, and the target for it.

    Args:
        text: `NAME:TARGET` with the name of an installed plug-in, or a file or URL whose suffix or
            scheme one of them handles.

    Raises:
        UsageError: If no plug-in handles it.

    Example:
        >>> plugin, target = find_sink("json:results.txt")
        >>> target
        'results.txt'
    """
    plugins: dict[str, SinkPlugin] = load_plugins("sinks")
    name, separator, target = text.partition(":")
    if separator and name in plugins:
        return plugins[name], target
    plugin = _by_scheme(text) if scheme_of(text) else _by_suffix(text)
    if plugin is None:
        raise UsageError(
            f"'{text}' is not a supported output; use NAME:TARGET with one of "
            f"{', '.join(plugins)}, or a file with one of {', '.join(_suffixes())}"
        )
    return plugin, text


def find_file_sink(path: Path) -> SinkPlugin:
    """Return the plug-in that writes files of a format.

    Args:
        path: File whose suffix selects the format.

    Raises:
        UsageError: If no plug-in writes this format.
    """
    plugin = _by_suffix(path.name)
    if plugin is None:
        raise UsageError(
            f"'{path}' is not a supported output format; use one of {', '.join(_suffixes())}"
        )
    return plugin


def _by_scheme(text: str) -> SinkPlugin | None:
    plugins: dict[str, SinkPlugin] = load_plugins("sinks")
    scheme = scheme_of(text)
    found = (one for one in plugins.values() if scheme in getattr(one, "schemes", ()))
    return next(found, None)


def _by_suffix(name: str) -> SinkPlugin | None:
    suffix = Path(name).suffix.lower()
    plugins: dict[str, SinkPlugin] = load_plugins("sinks")
    return next((plugin for plugin in plugins.values() if suffix in plugin.suffixes), None)


def _suffixes() -> list[str]:
    return [suffix for plugin in load_plugins("sinks").values() for suffix in plugin.suffixes]


def open_sink(text: str, info: SourceInfo, *, overwrite: bool = False) -> Sink:
    """Open the sink that a text describes.

    Args:
        text: `NAME:TARGET`, or a file whose suffix selects the format.
        info: The source of the results.
        overwrite: Whether existing files may be replaced.

    Returns:
        The sink; close it when done.

    Raises:
        UsageError: If no plug-in handles the text, or its target exists or cannot be written.
    """
    plugin, target = find_sink(text)
    return plugin.open(target, info, overwrite)
