"""Which source a text means: the plug-ins are asked by priority; folders hold several sources."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

from realtime_ssd.core.errors import RealtimeSSDError, UsageError, redact
from realtime_ssd.core.frames import Frame
from realtime_ssd.core.registry import load_plugins
from realtime_ssd.sources.base import (
    MAX_PIXELS,
    BaseSource,
    InputLimits,
    Source,
    SourceInfo,
    SourceOptions,
    SourcePlugin,
)
from realtime_ssd.sources.excerpt import select_frames
from realtime_ssd.sources.formats import STREAM_SCHEMES, scheme_of
from realtime_ssd.sources.paths import find_files, is_pattern, local_path, without_file_scheme
from realtime_ssd.sources.source_plugins import ImagesPlugin

__all__ = ["is_source", "open_source", "open_sources"]

MAX_OPEN_VIDEOS = 4
"""Videos of a folder from which each one is closed until its first frame is read."""

_MAX_REQUESTS = 32

_log = logging.getLogger(__name__)


def open_source(
    text: str | int | Path,
    *,
    decoder: Literal["cpu", "gpu"] = "cpu",
    recursive: bool = False,
    interval: float | None = None,
    start: float = 0.0,
    end: float | None = None,
    frame_step: int = 1,
    max_pixels: int = MAX_PIXELS,
    local_redirects: bool = True,
) -> Source:
    """Open the source that a text describes.

    Files, images, URLs of web servers and the demo are open when this returns, so that a wrong
    name is reported immediately; cameras and other streams are opened by the pipeline, which also
    reopens them after a loss.

    Args:
        text: Camera number or device, with settings as in `camera:0?size=1280x720&fps=30`; video
            file, image, folder of images, glob of images; URL (`rtsp://`, `http://`, `file://`,
            …); `-` for standard input; `demo[:WxH[@FPS][,seed=N][,frames=N]]`; or a form that an
            installed plug-in adds. What a web server sends decides whether it is read as an image,
            as a file without loss of frames, or as a live stream.
        decoder: Where to decode video files; "gpu" only where that is possible.
        recursive: Whether to search the subfolders of a folder.
        interval: Seconds after which a single image, local or on a web server, is read again and
            again; None to read it once.
        start: Seconds from the first frame of a file at which to begin.
        end: Seconds from the first frame of a file at which to stop; None for its end.
        frame_step: Read every n-th frame.
        max_pixels: Pixels that a frame or image may have; larger ones are refused before they are
            decoded.
        local_redirects: Whether a web server may redirect to addresses of this machine or of a
            private network; if not, playlists are refused too.

    Returns:
        The source; close it when done.

    Raises:
        UsageError: If the text is malformed, the source does not exist, or a value is out of range.
        SourceError: If the source exists but cannot be read.

    Example:
        >>> with open_source("demo:320x180@25,frames=2") as source:
        ...     sizes = [(frame.width, frame.height) for frame in source]
        >>> sizes
        [(320, 180), (320, 180)]
    """
    options = SourceOptions(
        decoder=decoder,
        recursive=recursive,
        interval=interval,
        start=start,
        end=end,
        frame_step=frame_step,
        limits=InputLimits(max_pixels, local_redirects),
    )
    return _open(without_file_scheme(str(text)), options)


def open_sources(texts: Sequence[str], options: SourceOptions | None = None) -> list[Source]:
    """Open sources; a folder or glob is one source for its photos, and one for each video.

    A video of a folder that cannot be read does not prevent the others from being read: its error
    is raised by `Source.read`.

    Args:
        texts: What `open_source` takes.
        options: Options of all sources.

    Returns:
        The sources; if one cannot be opened, those before it are closed.

    Raises:
        UsageError: If there is no such source.
        SourceError: If one cannot be read.
    """
    options = options or SourceOptions()
    opened: list[Source] = []
    try:
        for sources in _open_each([without_file_scheme(text) for text in texts], options):
            opened.extend(sources)
        if options.interval is not None and all(source.info.files for source in opened):
            raise UsageError("`interval` is for single images, such as the snapshot of a camera")
    except BaseException:
        for source in opened:
            source.close()
        raise
    return opened


def _open_each(
    texts: Sequence[str], options: SourceOptions
) -> Iterator[Iterator[Source] | list[Source]]:
    """Yield the sources of each text; web servers, which may not answer, are asked together."""
    if sum(scheme_of(text) in ("http", "https") for text in texts) < 2:
        yield from (_open_all(text, options) for text in texts)
        return
    with ThreadPoolExecutor(_MAX_REQUESTS) as pool:
        futures = [pool.submit(_list_all, text, options) for text in texts]
    failures = [error for future in futures if (error := future.exception()) is not None]
    yield from (future.result() for future in futures if future.exception() is None)
    for error in failures[:1]:
        raise error


def _list_all(text: str, options: SourceOptions) -> list[Source]:
    return list(_open_all(text, options))


def is_source(text: str) -> bool:
    """Return whether a text has the form of a source, or is the name of a file."""
    try:
        _find_plugin(text)
    except UsageError:
        return False
    return True


def _open_all(text: str, options: SourceOptions) -> Iterator[Source]:
    """Open the sources of a text one by one."""
    path = local_path(text)
    videos: list[Path] = []
    images = [path]
    if isinstance(_find_plugin(text), ImagesPlugin) and (path.is_dir() or is_pattern(path)):
        images, videos = find_files(path, recursive=options.recursive)
    if images or not videos:
        yield _open(text, options)
    for video in videos:
        open_video = partial(_open, str(video), options)
        try:
            yield _Deferred(open_video) if len(videos) > MAX_OPEN_VIDEOS else open_video()
        except RealtimeSSDError as error:
            _log.warning("%s", error)
            yield _Unreadable(video, error)


def _open(text: str, options: SourceOptions) -> Source:
    return select_frames(_find_plugin(text).open(text, options), options)


def _find_plugin(text: str) -> SourcePlugin:
    plugins: list[SourcePlugin] = list(load_plugins("sources").values())
    try:
        for plugin in sorted(plugins, key=lambda plugin: -plugin.priority):
            if plugin.matches(text):
                return plugin
    except OSError as error:
        raise UsageError(f"'{redact(text)}' cannot be opened: {error.strerror}") from None
    except ValueError:
        raise UsageError(
            f"{redact(text)!r} is not a file name; use a file, folder or URL"
        ) from None
    if scheme_of(text):
        raise UsageError(
            f"'{redact(text)}' has an unknown scheme; use one of {', '.join(STREAM_SCHEMES)}, or "
            "a file"
        )
    raise UsageError(f"'{text}' does not exist; use a file, folder, URL, camera number or 'demo'")


class _Deferred(BaseSource):
    """A file that is open only while it is read, for folders of many videos.

    Args:
        open_file: Opens it.
    """

    def __init__(self, open_file: Callable[[], Source]) -> None:
        self._open_file = open_file
        self._source: Source | None = None
        with open_file() as source:
            self.info = source.info

    def read(self) -> Frame | None:
        """See `Source.read`."""
        if self._source is None:
            self._source = self._open_file()
        return self._source.read()

    def close(self) -> None:
        """See `Source.close`."""
        if self._source is not None:
            self._source.close()


class _Unreadable(BaseSource):
    """A video that could not be opened.

    Args:
        path: The file.
        error: Raised by `read`.
    """

    def __init__(self, path: Path, error: RealtimeSSDError) -> None:
        self._error = error
        self.info = SourceInfo(str(path), path=path, files=(path,))

    def read(self) -> Frame | None:
        """Raise the error."""
        raise self._error
