"""Plan and check the output files of each source."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from realtime_ssd.cli.extensions import PlannedSink, plan_sinks
from realtime_ssd.cli.options import OutputOptions
from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.files import check_output
from realtime_ssd.core.registry import load_plugin
from realtime_ssd.sinks import Sink, find_file_sink, find_sink
from realtime_ssd.sinks.containers import VIDEO_SUFFIXES
from realtime_ssd.sinks.encoder_options import AutoEncoder, EncoderOptions, parse_bitrate
from realtime_ssd.sinks.publish_targets import HLS_SUFFIX, display_url, publish_target
from realtime_ssd.sinks.sink_plugins import PublishPlugin, VideoPlugin
from realtime_ssd.sources import SourceInfo
from realtime_ssd.sources.formats import IMAGE_SUFFIXES, scheme_of

__all__ = [
    "OutputTarget",
    "check_folders",
    "check_output_files",
    "encoder_options",
    "plan_detections",
    "plan_outputs",
]

_MAX_NAME = 200
"""Bytes of a file name that is derived from a source; file systems take 255."""


@dataclass(frozen=True, slots=True)
class OutputTarget:
    """Where the annotated frames of one source are written.

    Attributes:
        info: The source.
        path: Video file or playlist, or folder of photos.
        names: Photos below `path`, in the order of the source; empty for a video.
        url: URL to publish to, instead of `path`.
    """

    info: SourceInfo
    path: Path = Path()
    names: tuple[str, ...] = ()
    url: str = ""

    def files(self) -> Iterator[Path]:
        """Yield every file that will be written."""
        if self.names:
            yield from (self.path / name for name in self.names)
        elif not self.url:
            yield from find_file_sink(self.path).files(str(self.path), self.info)

    def open(self, encoding: EncoderOptions, *, overwrite: bool) -> Sink:
        """Open the sink.

        Raises:
            UsageError: If the target exists, is malformed or cannot be written.
        """
        if self.names:
            from realtime_ssd.sinks.images import ImageSink

            return ImageSink(self.path, self.names, overwrite=overwrite)
        plugin = find_sink(self.url)[0] if self.url else find_file_sink(self.path)
        target = self.url or str(self.path)
        if isinstance(plugin, VideoPlugin | PublishPlugin):
            return plugin.open(target, self.info, overwrite, encoding)
        return plugin.open(target, self.info, overwrite)


def encoder_options(outputs: OutputOptions) -> EncoderOptions:
    """Return how annotated video is encoded.

    Raises:
        UsageError: If an option has no valid value, or needs an --output.
    """
    bitrate = None if outputs.bitrate is None else parse_bitrate(outputs.bitrate)
    options = EncoderOptions(cast("AutoEncoder", outputs.encoder), outputs.quality, bitrate)
    if outputs.output is None and options != EncoderOptions():
        raise UsageError("`encoder`, `quality` and `bitrate` need an annotated video; set `output`")
    return options


def plan_outputs(target: str | Path, infos: Sequence[SourceInfo]) -> list[OutputTarget]:
    """Resolve `--output` for each source.

    Args:
        target: File, URL, or folder; a folder need not exist yet.
        infos: The sources.

    Raises:
        UsageError: If one file or URL is given for several sources or photos, or nothing can be
            published to the URL.
    """
    if scheme_of(str(target)):
        return [_publish_target(str(target), infos)]
    output = Path(target)
    suffix = output.suffix.lower()
    is_folder = os.path.isdir(output) or not suffix
    if not is_folder and len(infos) > 1:
        if suffix in (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES, HLS_SUFFIX) or os.path.exists(output):
            raise UsageError(
                f"'{output}' is one file for {len(infos)} sources; set `output` to a folder"
            )
        is_folder = True
    if is_folder:
        return _into_folder(output, infos)
    (info,) = infos
    if not (info.still and suffix in IMAGE_SUFFIXES):
        return [OutputTarget(info, output)]
    if len(info.names) > 1:
        raise UsageError(
            f"'{output}' is one file for {len(info.names)} photos; set `output` to a folder"
        )
    return [OutputTarget(info, output.parent, (output.name,))]


def plan_detections(outputs: OutputOptions, infos: Sequence[SourceInfo]) -> list[PlannedSink]:
    """Return the sinks of the options for detections and images, and --mot of each source."""
    planned = []
    for name, target in outputs.sinks():
        planned += plan_sinks([f"{name}:{target}"], infos)
    if outputs.mot is not None:
        plugin = load_plugin("sinks", "mot")
        for info, path in zip(infos, _mot_files(outputs.mot, infos), strict=True):
            planned.append(PlannedSink(plugin, str(path), info))
    return planned


def _mot_files(path: Path, infos: Sequence[SourceInfo]) -> list[Path]:
    """Return a file for each source: below a folder if there are several, or it is one."""
    if len(infos) == 1 and not path.is_dir():
        return [path]
    taken: set[str] = set()
    return [path / f"{_unique_name(Path(info.name).stem, taken)}.txt" for info in infos]


def check_folders(folders: Iterable[Path], infos: Sequence[SourceInfo]) -> None:
    """Check that no source lies in a folder that will be filled.

    Raises:
        UsageError: If one does.
    """
    sources = [Path(os.path.realpath(file)) for info in infos for file in info.files]
    for folder in folders:
        resolved = Path(os.path.realpath(folder))
        for source in sources:
            if source.is_relative_to(resolved):
                raise UsageError(
                    f"folder '{folder}' holds the source '{source.name}'; write to another folder"
                )


def _publish_target(url: str, infos: Sequence[SourceInfo]) -> OutputTarget:
    publish_target(url, live=False)  # checks it
    if len(infos) > 1:
        raise UsageError(
            f"'{display_url(url)}' is one stream for {len(infos)} sources; publish each source in "
            "a run of its own"
        )
    return OutputTarget(infos[0], url=url)


def _into_folder(folder: Path, infos: Sequence[SourceInfo]) -> list[OutputTarget]:
    """Keep the names of photos, in subfolders where two sources have the same."""
    taken: set[str] = set()
    photos = [name for info in infos for name in info.names]
    needs_subfolders = len(set(photos)) < len(photos)
    targets = []
    for info in infos:
        if not info.still:
            name = _unique_name(info.name, taken, ".mp4")
            targets.append(OutputTarget(info, folder / f"{name}.mp4"))
        elif needs_subfolders:
            below = folder / _unique_name(info.name, taken)
            targets.append(OutputTarget(info, below, _written_names(info)))
        else:
            targets.append(OutputTarget(info, folder, _written_names(info)))
    return targets


def _written_names(info: SourceInfo) -> tuple[str, ...]:
    from realtime_ssd.sinks.images import written_name

    return tuple(map(written_name, info.names))


def _unique_name(source: str, taken: set[str], suffix: str = "") -> str:
    """Return a file name for a source and add it to `taken`; duplicates are numbered.

    The query of a URL is left out, since it may be long and may contain a signature.
    """
    path = urlsplit(source).path if scheme_of(source) else source
    last = path.rstrip("/").rsplit("/", 1)[-1] or "video"
    stem = Path(last).stem if suffix and Path(last).suffix.lower() == suffix else last
    stem = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in stem)
    stem = stem.encode()[:_MAX_NAME].decode(errors="ignore")
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}-{number}", number + 1
    taken.add(name)
    return name


def check_output_files(
    files: Sequence[Path], infos: Sequence[SourceInfo], *, overwrite: bool = False
) -> None:
    """Check all output files of a run before it starts.

    Args:
        files: Every file that will be written.
        infos: The sources.
        overwrite: Whether existing files may be replaced; a source never is.

    Raises:
        UsageError: If a file is a source or another output, exists, or cannot be written.
    """
    inputs = {identity for info in infos for file in info.files if (identity := _identity(file))}
    seen: set[str] = set()
    for file in files:
        resolved = os.path.realpath(file)
        if resolved in seen:
            raise UsageError(f"'{file}' is used for two outputs; use a different file for each")
        seen.add(resolved)
        if _identity(file) in inputs:
            raise UsageError(f"'{file}' is a source; write to another file")
        check_output(file, overwrite=overwrite)


def _identity(file: Path) -> tuple[int, int] | None:
    """Return what identifies a file under all of its names; None if it does not exist."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
