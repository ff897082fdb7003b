"""FFmpeg opens only the protocols of the source: playlists and redirects do not lead elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from realtime_ssd import open_source
from realtime_ssd.core.errors import RealtimeSSDError, SourceError
from tests.core.http_server import FolderServer, serve_folder
from tests.videos import make_video

PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FolderServer]:
    make_video(tmp_path / "clip.mp4", [1001 * k for k in range(10)])
    with av.open(str(tmp_path / "clip.mp4")) as source, av.open(
        str(tmp_path / "clip.ts"), "w", options={"mpegts_flags": "resend_headers"}
    ) as target:  # fmt: skip
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    with serve_folder(tmp_path) as started:
        yield started


def frames(text: str | Path, *, local_redirects: bool = True) -> int:
    with open_source(text, local_redirects=local_redirects) as source:
        return sum(1 for _ in source)


def test_playlists_stay_where_they_are(server: FolderServer, tmp_path: Path) -> None:
    file = f"file://{tmp_path}/clip.ts"
    for name, target in (("own", "clip.ts"), ("file", file), ("remote", f"{server.url}/clip.ts"),
                         ("path", f"{tmp_path}/clip.ts"), ("concat", "concat:clip.ts"),
                         ("subfile", f"subfile,,start,0,end,9,,:{file}")):  # fmt: skip
        (tmp_path / f"{name}.m3u8").write_text(PLAYLIST.format(target))
    for name in ("own", "remote"):
        assert frames(f"{server.url}/{name}.m3u8") == 10
    for name in ("file", "path", "concat", "subfile"):
        with pytest.raises(RealtimeSSDError):
            frames(f"{server.url}/{name}.m3u8")
    for name in ("own", "file", "path"):
        assert frames(tmp_path / f"{name}.m3u8") == 10
    for name in ("remote", "concat", "subfile"):
        with pytest.raises(SourceError):
            frames(tmp_path / f"{name}.m3u8")


@pytest.mark.parametrize("target", ["file://{}/clip.mp4", "tcp://127.0.0.1:9", "concat:{}/c.ts"])
def test_redirects_stay_on_the_web(server: FolderServer, tmp_path: Path, target: str) -> None:
    with pytest.raises(RealtimeSSDError):
        frames(f"{server.url}/redirect?{target.format(tmp_path)}")
    assert frames(f"{server.url}/redirect?/clip.mp4") == 10


def test_redirects_to_local_addresses(server: FolderServer, tmp_path: Path) -> None:
    """A service can refuse them; a redirect within the server of the source is none."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("clip.mp4", "clip.ts"):
        (elsewhere / name).write_bytes((tmp_path / name).read_bytes())
    (elsewhere / "own.m3u8").write_text(PLAYLIST.format("clip.ts"))
    with serve_folder(elsewhere) as other:
        urls = (f"{other.url}/redirect?{server.url}/clip.mp4",
                f"{other.url}/redirect?http://localhost:{server.server_port}/clip.mp4",
                f"{other.url}/redirect?http://[::ffff:127.0.0.1]:{server.server_port}/clip.mp4",
                f"{other.url}/redirect?/redirect?{server.url}/clip.mp4",
                f"{other.url}/redirect?http://169.254.169.254/latest/meta-data/",
                f"{other.url}/redirect?file:///etc/passwd")  # fmt: skip
        for url in urls:
            with pytest.raises(SourceError, match="redirects to a local or invalid address; "):
                frames(url, local_redirects=False)
        assert server.requests == []
        assert frames(urls[0]) == 10
        assert frames(f"{other.url}/redirect?/clip.mp4", local_redirects=False) == 10
        with pytest.raises(SourceError, match="redirects more than 8 times"):
            frames(f"{other.url}" + "/redirect?" * 10, local_redirects=False)
        with pytest.raises(SourceError, match="is a playlist, whose entries may lead to local"):
            frames(f"{other.url}/own.m3u8", local_redirects=False)
