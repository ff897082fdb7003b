"""Names of files, folders and globs, and standard input."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from realtime_ssd.core.errors import SourceError, UsageError
from realtime_ssd.sources import SourceOptions, open_source, open_sources
from realtime_ssd.sources.paths import find_files, without_file_scheme
from tests.videos import make_video, readable


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("clip") / "clip.mp4", [0, 1001, 2002])


@pytest.fixture
def copy(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Copies the clip to a path below the current folder."""
    monkeypatch.chdir(tmp_path)

    def copy_to(name: str) -> Path:
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(clip, target))

    return copy_to


NAMES = [
    *("2024-11-14T22:57:44.mp4", "cam:1/clip.mp4", "http:clip.mp4", "~clip.mp4", "~nobody/a.mp4"),
    *("5²3.mp4", "٣.mp4", "a[x].mp4", "[1]/a.mp4", "-clip.mp4", "a b%20c.mp4", "what?.mp4"),
    *("100%.mp4", "a#b.mp4", "%03d.mp4", "new\nline.mp4", "concat:a|b.mp4", "camera.mp4"),
]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_read_as_a_path_and_as_a_url(copy: Callable[[str], Path], name: str) -> None:
    path = copy(name)
    frames, problem = readable(Path(name))
    assert (len(frames), problem) == (3, "")
    with open_source(path.as_uri()) as source:
        assert source.info.path == path
    with open_sources([name])[0] as source:
        assert source.read() is not None


def test_file_url_may_be_unencoded_or_have_a_host(copy: Callable[[str], Path]) -> None:
    path = copy("a%20b #1.mp4")
    for url in (f"file://{path}", f"file:{path}", f"FILE://localhost{path}"):
        with open_source(url) as source:
            assert source.info.path == path
    with pytest.raises(UsageError, match="is a file on another computer"):
        open_source("file://nas/clip.mp4")


def test_photos_with_any_name_are_ordered(tmp_path: Path) -> None:
    for name in ("10.png", "²2.png", "5²3.png", "9.png", "٣.png", "[a].png"):
        cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tofile(tmp_path / name)
    with open_source(tmp_path) as source:
        assert source.info.names == ("5²3.png", "9.png", "10.png", "[a].png", "²2.png", "٣.png")


def test_folder_holds_photos_and_videos(copy: Callable[[str], Path]) -> None:
    for name in ("f/b.mp4", "f/a10.MOV", "f/a9.mkv", "f/sub/c.mp4", "f/.hidden.mp4", "f/.x/d.mp4"):
        copy(name)
    cv2.imwrite("f/1.jpg", np.zeros((4, 4, 3), np.uint8))
    cv2.imwrite("f/sub/2.jpg", np.zeros((4, 4, 3), np.uint8))
    Path("f/notes.txt").touch()
    flat = ["f", "f/a9.mkv", "f/a10.MOV", "f/b.mp4"]
    assert names_of("f") == flat
    assert names_of("f", recursive=True) == [*flat, "f/sub/c.mp4"]
    assert names_of("f/*.mp4") == ["f/b.mp4"]
    assert names_of("f/**/*.mp4") == ["f/b.mp4", "f/sub/c.mp4"]
    assert names_of("*", recursive=True) == ["*", *flat[1:], "f/sub/c.mp4"]
    with open_source("f", recursive=True) as source:
        assert source.info.names == ("1.jpg", "2.jpg")


def names_of(text: str, *, recursive: bool = False) -> list[str]:
    sources = open_sources([text], SourceOptions(recursive=recursive))
    for source in sources:
        source.close()
    return [source.info.name for source in sources]


def test_glob_in_a_folder_with_brackets_in_its_name(copy: Callable[[str], Path]) -> None:
    copy("we[i]rd/a[1].mp4")
    copy("weird/b.mp4")
    assert names_of("we[i]rd/*.mp4") == ["we[i]rd/a[1].mp4"]
    assert names_of("w*/*.mp4") == ["we[i]rd/a[1].mp4", "weird/b.mp4"]


def test_damaged_video_of_a_folder_is_reported_while_the_others_are_read(
    copy: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    for name in "abcdef":
        copy(f"f/{name}.mp4")
    Path("f/c.mp4").write_bytes(b"no video")
    sources = open_sources(["f"])
    counts = []
    for source in sources:
        with source:
            if source.info.name == "f/c.mp4":
                with pytest.raises(SourceError, match=r"'f/c\.mp4' cannot be read as a video"):
                    source.read()
            else:
                counts.append(len(list(source)))
    assert counts == [3] * 5
    assert "'f/c.mp4' cannot be read" in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every folder")
def test_folder_without_permission_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir(mode=0)
    with pytest.raises(UsageError, match="cannot be read: Permission denied"):
        find_files(tmp_path / "f", recursive=False)


def test_standard_input_must_be_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    with pytest.raises(UsageError, match="standard input is a terminal; pipe a video into it"):
        without_file_scheme("-")
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UsageError, match="standard input is closed"):
        without_file_scheme("/dev/stdin")


@pytest.mark.parametrize("name", ["nul\0byte.mp4", "x" * 5000, "\udcff\udcfe.mp4"])
def test_name_that_no_file_can_have_is_an_error(name: str) -> None:
    with pytest.raises(UsageError):
        open_source(name)
    with pytest.raises(UsageError):
        open_sources([f"{name}/*"])
