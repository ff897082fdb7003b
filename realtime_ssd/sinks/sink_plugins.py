"""Plug-ins of the built-in sinks, registered as entry points.

Each imports the module of its sink, and with it OpenCV or FFmpeg, only when it opens one.
"""

from __future__ import annotations

from pathlib import Path

from realtime_ssd.core.errors import UsageError
from realtime_ssd.sinks.base import Sink
from realtime_ssd.sinks.containers import VIDEO_SUFFIXES
from realtime_ssd.sinks.encoder_options import EncoderOptions
from realtime_ssd.sinks.publish_targets import HLS_SUFFIX, PUBLISH_SCHEMES
from realtime_ssd.sources.base import SourceInfo
from realtime_ssd.sources.formats import IMAGE_SUFFIXES, scheme_of

__all__ = ["IMAGES", "JSON", "PUBLISH", "VIDEO", "PublishPlugin", "VideoPlugin"]


class VideoPlugin:
    """Writes annotated video to a file; see `SinkPlugin`."""

    suffixes = VIDEO_SUFFIXES
    per_source = True

    def files(self, target: str, info: SourceInfo) -> tuple[Path, ...]:
        """See `SinkPlugin.files`."""
        return (Path(target),)

    def open(
        self,
        target: str,
        info: SourceInfo,
        overwrite: bool,
        encoding: EncoderOptions | None = None,
    ) -> Sink:
        """See `SinkPlugin.open`; `encoding` selects encoder, quality or bit rate."""
        from realtime_ssd.sinks.video import VideoSink

        return VideoSink(Path(target), info, encoding=encoding, overwrite=overwrite)


class PublishPlugin:
    """Publishes annotated video to a URL, or as an HLS playlist; see `SinkPlugin`."""

    suffixes = (HLS_SUFFIX,)
    schemes = PUBLISH_SCHEMES
    per_source = True

    def files(self, target: str, info: SourceInfo) -> tuple[Path, ...]:
        """See `SinkPlugin.files`; further segments of a playlist are not listed."""
        if scheme_of(target):
            return ()
        path = Path(target)
        return path, path.with_name(f"{path.stem}_00000.ts")

    def open(
        self,
        target: str,
        info: SourceInfo,
        overwrite: bool,
        encoding: EncoderOptions | None = None,
    ) -> Sink:
        """See `SinkPlugin.open`; `encoding` selects encoder, quality or bit rate."""
        from realtime_ssd.sinks.publish import PublishSink

        return PublishSink(target, info, encoding=encoding, overwrite=overwrite)


class ImagesPlugin:
    """Writes annotated images into a folder, or a single one to a file; see `SinkPlugin`."""

    suffixes = IMAGE_SUFFIXES
    per_source = True

    def files(self, target: str, info: SourceInfo) -> tuple[Path, ...]:
        """See `SinkPlugin.files`; frames of a video are named by their number and not listed."""
        path = Path(target)
        if _is_image_file(path):
            return (path,)
        return tuple(path / name for name in info.names)

    def open(self, target: str, info: SourceInfo, overwrite: bool) -> Sink:
        """See `SinkPlugin.open`."""
        from realtime_ssd.sinks.images import ImageSink

        path = Path(target)
        if not _is_image_file(path):
            return ImageSink(path, overwrite=overwrite)
        if info.frame_count != 1:
            raise UsageError(
                f"'{path}' is a single image; use a folder, or a video file (one of "
                f"{', '.join(VIDEO_SUFFIXES)})"
            )
        return ImageSink(path.parent, (path.name,), overwrite=overwrite)


class JsonPlugin:
    """Writes JSON lines to a file or to standard output ("-"); see `SinkPlugin`."""

    suffixes = (".jsonl",)
    per_source = False

    def files(self, target: str, info: SourceInfo) -> tuple[Path, ...]:
        """See `SinkPlugin.files`."""
        return () if target == "-" else (Path(target),)

    def open(self, target: str, info: SourceInfo, overwrite: bool) -> Sink:
        """See `SinkPlugin.open`."""
        from realtime_ssd.sinks.jsonlines import JsonSink

        return JsonSink(target, overwrite=overwrite)


def _is_image_file(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()


VIDEO, PUBLISH, IMAGES, JSON = VideoPlugin(), PublishPlugin(), ImagesPlugin(), JsonPlugin()
