"""Where outputs are written, and what they never replace."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from realtime_ssd.cli import main
from realtime_ssd.cli.outputs import plan_outputs
from realtime_ssd.core.errors import UsageError
from realtime_ssd.sources import SourceInfo
from tests.cli.program import run
from tests.tiny import bright_cell
from tests.videos import make_video, stamps_of

DEMO = ("--source", "demo:160x96,frames=2")


def run_main(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Run the program in this process and return its exit status and last line of stderr."""
    status = 0
    try:
        main([str(word) for word in (*arguments, "--no-show")])
    except SystemExit as end:
        status = int(end.code or 0)
    return status, (capsys.readouterr().err.splitlines() or [""])[-1]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two folders with a photo of the same name in each."""
    for name, cell in (("one", (0, 1)), ("two", (2, 3))):
        (tmp_path / "photos" / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "photos" / name / "a.png"), bright_cell(cell))
    return tmp_path / "photos"


def test_a_video_source_is_never_overwritten(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = make_video(tmp_path / "v.mp4", [0, 1001, 2002])
    before = video.read_bytes()
    (tmp_path / "other.mp4").symlink_to(video)
    for option, file in (
        ("--output", "v.mp4"),
        ("--output", "other.mp4"),
        ("--output", "."),
        ("--json", "v.mp4"),
        ("--stats", "v.mp4"),
        ("--sink", "v.mp4"),
        ("--sink", "video:v.mp4"),
        ("--sink", "json:v.mp4"),
    ):
        name, _, path = file.rpartition(":")
        target = f"{name}:{tmp_path / path}" if name else tmp_path / path
        arguments = ("--video", video, "--model", tiny, option, target, "--overwrite")
        status, line = run_main(capsys, *arguments)
        assert (status, "is a source" in line) == (2, True), (option, file, line)
        assert video.read_bytes() == before


def test_photo_sources_are_never_overwritten(
    tiny: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (photos / "one/a.png").read_bytes()
    arguments = ("--source", photos / "one", "--model", tiny, "--overwrite")
    for output in (photos / "one", photos / "one" / "a.png"):
        status, line = run_main(capsys, *arguments, "--output", output)
        assert (status, "is a source" in line) == (2, True), line
        assert (photos / "one/a.png").read_bytes() == before


def test_photos_of_the_same_name_are_kept_apart(
    tiny: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pattern = photos / "*" / "*.png"
    finished = run_main(capsys, "--source", pattern, "--model", tiny, "--output", tmp_path / "glob")
    assert finished[0] == 0, finished[1]
    both = ("--source", photos / "one", "--source", photos / "two")
    finished = run_main(capsys, *both, "--model", tiny, "--output", tmp_path / "both")
    assert finished[0] == 0, finished[1]
    for folder in ("glob", "both"):
        first, second = (cv2.imread(str(tmp_path / folder / k / "a.png")) for k in ("one", "two"))
        assert first is not None
        assert second is not None
        assert np.abs(first.astype(int) - second).max() > 100


def test_nothing_is_written_when_one_output_cannot_be(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old.json").write_text("precious")
    video, lines = tmp_path / "o.mp4", tmp_path / "o.jsonl"
    for stats, text in (
        (tmp_path / "old.json", "set --overwrite"),
        (tmp_path / "old.json" / "s.json", "is not a folder"),
        (tmp_path, "it is a folder"),
        (lines, "used for two outputs"),
    ):
        arguments = ("--output", video, "--json", lines, "--stats", stats)
        status, line = run_main(capsys, *DEMO, "--model", tiny, *arguments)
        assert (status, text in line) == (2, True), line
        assert not video.exists()
        assert not lines.exists()
    assert (tmp_path / "old.json").read_text() == "precious"


def test_a_run_that_fails_to_start_leaves_no_empty_files(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--output", tmp_path / "o.mp4", "--json", tmp_path / "o.jsonl")
    status, line = run_main(capsys, "--camera", 97, "--model", tiny, *arguments)
    assert (status, "camera 97 does not exist" in line) == (2, True)
    assert not list(tmp_path.iterdir())


def video(name: str) -> SourceInfo:
    return SourceInfo(name, 160, 120, rate=Fraction(25))


def photo(*names: str) -> SourceInfo:
    return SourceInfo("photos", still=True, frame_count=len(names), names=names)


def test_one_file_holds_one_source(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one file for 2 sources"):
        plan_outputs(tmp_path / "o.mp4", [video("a.mp4"), video("b.mp4")])
    with pytest.raises(UsageError, match="one file for 2 photos"):
        plan_outputs(tmp_path / "o.jpg", [photo("a.jpg", "b.jpg")])
    (only,) = plan_outputs(tmp_path / "o.jpg", [photo("a.jpg")])
    assert list(only.files()) == [tmp_path / "o.jpg"]
    (only,) = plan_outputs(tmp_path / "o.mp4", [photo("a.jpg", "b.jpg")])
    assert list(only.files()) == [tmp_path / "o.mp4"]


def test_a_folder_holds_all_sources(tmp_path: Path) -> None:
    infos = [video("x/a.mp4"), video("y/a.mp4"), video("http://host/live"), photo("p.jpg")]
    targets = plan_outputs(tmp_path / "results.v2", infos)
    names = [file.name for target in targets for file in target.files()]
    assert names == ["a.mp4", "a-2.mp4", "live.mp4", "p.jpg"]


def test_json_lines_to_an_existing_device(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(capsys, *DEMO, "--model", tiny, "--json", "/dev/null")[0] == 0
    status, line = run_main(capsys, *DEMO, "--model", tiny, "--json", "/dev/full")
    assert (status, "No space left" in line) == (1, True)


def test_a_file_named_like_a_camera_is_a_file(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("7", "demo"):
        make_video(tmp_path / "v.mp4", [0, 1001]).rename(tmp_path / name)
        status, line = run_main(capsys, "--video", name, "--model", tiny, "--output", f"{name}.mp4")
        assert status == 0, line
        assert stamps_of(tmp_path / f"{name}.mp4") == [0, Fraction(1001, 30000)]


def test_name_from_a_url_leaves_out_its_query_and_is_never_too_long(tmp_path: Path) -> None:
    signed = SourceInfo(f"https://host/clip.mp4?Policy={'x' * 300}&Key-Pair-Id=K")
    long = SourceInfo("é" * 300)
    targets = plan_outputs(tmp_path, [signed, long])
    assert targets[0].path == tmp_path / "clip.mp4"
    assert targets[1].path == tmp_path / f"{'é' * 100}.mp4"
    targets[1].path.touch()


@pytest.mark.parametrize("option", ["--output", "--json", "--stats"])
def test_output_whose_name_is_too_long_is_one_sentence(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    target = tmp_path / f"{'x' * 300}.mp4"
    status, line = run_main(capsys, *DEMO, "--model", tiny, option, target)
    assert status == 2
    assert line.endswith("cannot be written: File name too long")


def test_every_output_creates_its_folder(
    tiny: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new"
    options = {
        "--output": new / "a/o", "--json": new / "b/o.jsonl", "--stats": new / "c/s.json",
        "--csv": new / "d/o.csv", "--coco": new / "e/o.json", "--yolo": new / "f/g",
        "--mot": new / "h/o.txt", "--save-crops": new / "i/j",
    }  # fmt: skip
    arguments = [part for option in options.items() for part in option]
    frames = ("--save-frames", "all", "--no-show")
    words = ("--source", photos / "one", "--model", tiny, *frames, *arguments)
    status = 0
    try:
        main(list(map(str, words)))
    except SystemExit as end:
        status = int(end.code or 0)
    lines = capsys.readouterr().err.splitlines()
    assert status == 0, lines
    files = {path.relative_to(new).as_posix() for path in new.rglob("*") if path.is_file()}
    assert files == {
        "a/o/a.png", "b/o.jsonl", "c/s.json", "d/o.csv", "e/o.json", "f/g/data.yaml",
        "f/g/labels/a.txt", "f/g/images/a.png", "h/o.txt", "i/j/bright/a_0.jpg",
    }  # fmt: skip
    assert lines[-3].startswith("1 photo in ")
    assert lines[-2] == "detections: 1 bright"
    assert lines[-1].startswith(f"results: {new / 'a/o'}, ")
    assert str(new / "f/g/images") in lines[-1]


def test_mot_results_of_several_sources_are_in_a_folder(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        make_video(tmp_path / name / "v.mp4", [0, 1001])
    sources = ("--video", tmp_path / "one/v.mp4", "--video", tmp_path / "two/v.mp4")
    arguments = ("--score-threshold", "0.01", "--mot", tmp_path / "mot")
    status, line = run_main(capsys, *sources, "--model", tiny, *arguments)
    assert status == 0, line
    assert line == f"results: {tmp_path / 'mot'}"
    names = sorted(path.name for path in (tmp_path / "mot").iterdir())
    assert set(names) <= {"v.txt", "v-2.txt"}


def test_folders_with_sources_are_not_written_into(
    tiny: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--source", photos / "one", "--model", tiny, "--overwrite")
    frames = ("--save-frames", "all", "--frames-folder")
    for option in ((*frames, photos), (*frames, photos / "one"), ("--save-crops", photos)):
        status, line = run_main(capsys, *arguments, *option)
        assert (status, "holds the source 'a.png'" in line) == (2, True), line
    assert len(list(photos.rglob("*.*"))) == 2


def test_encoder_options_need_a_video(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = ("--source", "demo:160x96,frames=2", "--model", tiny)
    video = ("--output", tmp_path / "o.mp4")
    for arguments, text in (
        (("--quality", 50, "--json", "/dev/null"), "need an annotated video; set --output"),
        ((*video, "--quality", 101), "--quality must be from 1 to 100, not 101"),
        ((*video, "--bitrate", "fast"), "--bitrate must be a number such as"),
        ((*video, "--encoder", "x264"), "there is no --encoder 'x264'; use one of auto, libx264"),
        ((*video, "--encoder", "libvpx-vp9"), "cannot be used for .mp4; set --encoder to auto"),
        (("--output", "http://host/x"), "is not a supported output; publish to one of rtsp://"),
    ):
        status, line = run_main(capsys, *demo, *arguments)
        assert (status, text in line) == (2, True), line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--output", "--sink"])
def test_several_sources_cannot_share_a_stream(
    tiny: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    sources = (*DEMO, "--source", "demo:96x96,frames=2")
    status, line = run_main(capsys, *sources, "--model", tiny, option, "rtsp://u:p@host/live")
    assert status == 2
    assert line.endswith(
        "'rtsp://host/live' is one stream for 2 sources; publish each source in a run of its own"
    )


def test_standard_output_takes_one_output() -> None:
    finished = run("demo:64x48,frames=1", "--json", "-", "--csv", "-")
    assert finished.returncode == 2
    assert "standard output takes only one output" in finished.stderr
    assert finished.stdout == ""
