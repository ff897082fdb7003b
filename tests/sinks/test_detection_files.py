"""CSV, COCO, YOLO and MOT files, read back by other libraries; crops and frames."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from realtime_ssd import Detections, Frame
from realtime_ssd.core.errors import RealtimeSSDError, UsageError
from realtime_ssd.core.results import FrameResult
from realtime_ssd.sinks import open_sink
from realtime_ssd.sinks.coco_file import CocoSink
from realtime_ssd.sinks.frame_names import FrameNames
from realtime_ssd.sinks.saved_images import CropSink, FrameSink
from realtime_ssd.sources import SourceInfo

LABELS = ("background", "car", "traffic light")
BOXES = ((10.0, 20.0, 50.5, 60.25), (-5.0, 70.0, 30.0, 90.0))
INFO = SourceInfo("street.mp4")


def image(index: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    rows = np.arange(80, dtype=np.uint8)[:, None, None] + np.zeros((80, 100, 3), np.uint8)
    return np.asarray(rows + index, np.uint8)


def result(
    index: int,
    count: int = 2,
    *,
    name: str = "",
    source: str = "clips/street.mp4",
    ids: bool = True,
) -> FrameResult:
    detections = Detections(
        np.array(BOXES[:count], np.float32).reshape(count, 4),
        np.array([0.9, 0.5][:count], np.float32),
        np.array([1, 2][:count], np.int32),
        LABELS,
        np.array([7, 8][:count], np.int64) if ids else None,
    )
    return FrameResult(Frame(image(index), index, source, index * 40, name=name), detections)


def write(target: str, *results: FrameResult) -> None:
    with open_sink(target, INFO) as sink:
        for one in results:
            sink.write(one)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_a_row_for_each_detection(tmp_path: Path) -> None:
    path = tmp_path / "new" / "o.csv"
    write(str(path), result(0), result(1, 0), result(2, 1, name="a,b.png", ids=False))
    rows = read_csv(path)
    assert [(row["frame"], row["label"], row["track_id"]) for row in rows] == [
        ("0", "car", "7"),
        ("0", "traffic light", "8"),
        ("2", "car", ""),
    ]
    boxes = [[float(rows[0][key]) for key in ("x1", "y1", "x2", "y2")] for _ in "1"]
    assert boxes == [[10, 20, 50.5, 60.25]]
    assert (rows[2]["file"], rows[2]["time"], float(rows[2]["score"])) == ("a,b.png", "0.08", 0.9)


def test_csv_without_detections_has_a_header(tmp_path: Path) -> None:
    write(f"csv:{tmp_path / 'o.csv'}", result(0, 0))
    assert (tmp_path / "o.csv").read_text().startswith("source,file,")
    write(f"csv:{tmp_path / 'none.csv'}")
    assert not (tmp_path / "none.csv").exists()


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_csv_formulas_are_escaped(tmp_path: Path, start: str) -> None:
    found = result(0, 1, name=f"{start}cmd.png", source=f"{start}source")
    found.detections = Detections(
        *(found.detections.boxes - 30, found.detections.scores, found.detections.class_ids),
        ("background", f"{start}SUM(A1)"),
    )
    write(f"csv:{tmp_path / 'o.csv'}", found)
    (row,) = read_csv(tmp_path / "o.csv")
    # Control characters are written as escape sequences, which are no formula either.
    shown = {"\t": "\\t", "\r": "\\r"}.get(start, f"'{start}")
    assert row["label"] == f"{shown}SUM(A1)"
    assert row["file"] == f"{shown}cmd.png"
    assert row["source"] == f"{shown}source"
    assert float(row["x1"]) == -20  # numbers stay numbers


def test_coco_is_read_by_pycocotools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO

    write(f"coco:{tmp_path / 'o.json'}", result(0), result(1, 0), result(2, 1, ids=False))
    coco = COCO(str(tmp_path / "o.json"))
    capsys.readouterr()
    assert [coco.cats[key]["name"] for key in sorted(coco.cats)] == ["car", "traffic light"]
    images = coco.loadImgs(coco.getImgIds())
    assert [one["file_name"] for one in images] == [f"street_00000{k}.jpg" for k in range(3)]
    assert (images[2]["width"], images[2]["height"], images[2]["time"]) == (100, 80, 0.08)
    first = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert [one["bbox"] for one in first] == [[10, 20, 40.5, 40.25], [-5, 70, 35, 20]]
    assert [(one["category_id"], one["score"], one["track_id"]) for one in first] == [
        (1, 0.9, 7),
        (2, 0.5, 8),
    ]
    assert coco.getAnnIds(imgIds=[2]) == []
    (last,) = coco.loadAnns(coco.getAnnIds(imgIds=[3]))
    assert "track_id" not in last


def test_coco_is_complete_after_every_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realtime_ssd.sinks.coco_file._SAVE_INTERVAL", 0.0)
    monkeypatch.setattr("realtime_ssd.sinks.coco_file._SAVE_SHARE", 0)
    path = tmp_path / "o.json"
    with CocoSink(path) as sink:
        for index, count in enumerate((0, 2, 0, 1, 2)):
            sink.write(result(index, count))
            content = json.loads(path.read_text())
            assert len(content["images"]) == index + 1
    assert [one["image_id"] for one in content["annotations"]] == [2, 2, 4, 5, 5]
    assert [one["id"] for one in content["annotations"]] == [1, 2, 3, 4, 5]


FULL_DISK = """
import resource, signal, sys
from realtime_ssd.core.errors import RealtimeSSDError
import realtime_ssd.sinks.coco_file as coco
from realtime_ssd.sinks import open_sink
from tests.sinks.test_detection_files import INFO, result
coco._SAVE_INTERVAL = coco._SAVE_SHARE = 0
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sink = open_sink(sys.argv[1], INFO)
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
try:
    for number in range(1000): sink.write(result(number))
except RealtimeSSDError as error: print(error)
sink.close()
"""


@pytest.mark.parametrize("kind", ["csv", "coco", "mot"])
def test_a_full_disk_leaves_readable_files(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "o.txt"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, f"{kind}:{path}"],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout.count("\n") == 1
    assert str(path) in done.stdout
    assert "(File too large)" in done.stdout
    if kind == "coco":
        content = json.loads(path.read_text())
        assert len(content["annotations"]) == 2 * len(content["images"]) > 20
        return
    lines = path.read_text().splitlines()
    assert len(lines) > 100
    assert len({line.count(",") for line in lines}) == 1


def test_yolo_and_frames_are_read_by_supervision(tmp_path: Path) -> None:
    import supervision

    folder = tmp_path / "set"
    with open_sink(f"yolo:{folder}", INFO) as labels, FrameSink(folder / "images") as frames:
        for one in (result(0), result(1, 0), result(2, 1, name="photo.png", source="photos")):
            labels.write(one)
            frames.write(one)
    dataset = supervision.DetectionDataset.from_yolo(
        str(folder / "images"), str(folder / "labels"), str(folder / "data.yaml")
    )
    assert dataset.classes == ["car", "traffic light"]
    found = {Path(path).name: annotations for path, _, annotations in dataset}
    assert sorted(found) == ["photo.png", "street_000000.jpg", "street_000001.jpg"]
    boxes = found["street_000000.jpg"].xyxy
    assert boxes == pytest.approx(np.array([BOXES[0], (0, 70, 30, 80)]), abs=0.01)
    assert found["street_000000.jpg"].class_id.tolist() == [0, 1]
    assert len(found["street_000001.jpg"]) == 0
    assert len(found["photo.png"]) == 1


def test_yolo_quotes_class_names(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    found = result(0, 0)
    names = ("yes", "a: b", "#1", "\u8f66")
    found.detections = Detections.empty(("background", *names))
    write(f"yolo:{tmp_path}", found)
    content = yaml.safe_load((tmp_path / "data.yaml").read_text())
    assert content["names"] == dict(enumerate(names))


def test_mot_is_read_by_trackers(tmp_path: Path) -> None:
    from trackers.io.mot import load_mot_file

    path = tmp_path / "new/o.txt"
    write(f"mot:{path}", result(0), result(1, 0), result(4, 1, ids=False))
    frames = load_mot_file(path)
    assert sorted(frames) == [1, 5]
    assert frames[1].ids.tolist() == [7, 8]
    assert frames[1].boxes.tolist() == [[10, 20, 40.5, 40.25], [-5, 70, 35, 20]]
    assert frames[1].confidences.tolist() == [0.9, 0.5]
    assert frames[5].ids.tolist() == [-1]


def test_crops_show_the_pixels_in_the_boxes(tmp_path: Path) -> None:
    with CropSink(tmp_path / "crops") as sink:
        sink.write(result(0))
        sink.write(result(1, 1, ids=False, name="a/b.png"))
    crops = tmp_path / "crops"
    files = sorted(path.relative_to(crops).as_posix() for path in crops.rglob("*.jpg"))
    assert files == [
        "car/a-b_0.jpg", "car/street_000000_track7.jpg", "traffic-light/street_000000_track8.jpg",
    ]  # fmt: skip
    crop = cv2.imread(str(crops / files[1]))
    assert crop is not None
    assert crop.shape == (41, 41, 3)
    assert np.abs(crop.astype(int) - image()[20:61, 10:51]).max() <= 3
    clipped = cv2.imread(str(crops / files[2]))
    assert clipped is not None
    assert clipped.shape == (10, 30, 3)


@pytest.mark.parametrize(("which", "saved"), [("detected", [0, 2]), ("all", [0, 1, 2])])
def test_frames_are_saved_without_annotations(tmp_path: Path, which: str, saved: list[int]) -> None:
    write(f"frames:{which}:{tmp_path}", *(result(k, (1, 0, 2)[k]) for k in range(3)))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"street_00000{index}.jpg" for index in saved]
    pixels = cv2.imread(str(tmp_path / names[0]))
    assert pixels is not None
    assert np.abs(pixels.astype(int) - image()).max() <= 3


def test_names_of_frames_are_unique_and_stay_in_the_folder() -> None:
    names = FrameNames()
    sources = ("x/a.mp4", "y/a.mp4", "rtsp://host/live?token=1", "../..", "/")
    shown = [names(result(5, source=source).frame) for source in sources]
    assert shown == [
        "a_000005.jpg", "a-2_000005.jpg", "live_000005.jpg", "video_000005.jpg",
        "video-2_000005.jpg",
    ]  # fmt: skip
    for name, source, expected in (
        ("a.png", "one", "a.png"),
        ("a.png", "two", "two/a.png"),
        ("../../etc/x.jpg", "one", "etc/x.jpg"),
        ("b.heic", "one", "b.heic.jpg"),
    ):
        assert names(result(0, name=name, source=source).frame) == expected


def test_names_of_photos_and_frames_differ_before_the_suffix() -> None:
    names = FrameNames()
    shown = [
        names(result(0, name="x.jpg", source="in").frame),
        names(result(1, name="x.png", source="in").frame),
        names(result(0, name="x.jpg", source="in").frame),
        names(result(2, name="a_000000.jpg", source="in").frame),
        names(result(0, source="in/a.mp4").frame),
        names(result(0, source="in/b.mp4").frame),
        names(result(3, name="b_000000.jpg", source="in").frame),
    ]
    assert shown == [
        "x.jpg", "x-2.png", "x.jpg", "a_000000.jpg", "a-2_000000.jpg", "b_000000.jpg",
        "b_000000-2.jpg",
    ]  # fmt: skip


def test_mot_rows_have_one_object_per_id(tmp_path: Path) -> None:
    sink = open_sink(f"mot:{tmp_path / 'a.txt'}", INFO)
    found = result(0)
    count = len(found.detections)
    assert count > 1
    found.detections = replace(found.detections, track_ids=np.array([3, *[-1] * (count - 1)]))
    sink.write(found)
    sink.close()
    rows = (tmp_path / "a.txt").read_text().splitlines()
    assert [row.split(",")[1] for row in rows] == ["3"]


@pytest.mark.parametrize("target", ["crops:{}", "frames:{}", "yolo:{}"])
def test_folders_with_files_are_kept(tmp_path: Path, target: str) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/old.txt").write_text("old")
    with pytest.raises(UsageError, match="is not empty; set `overwrite` to write into it"):
        open_sink(target.format(tmp_path), INFO)
    open_sink(target.format(tmp_path), INFO, overwrite=True).close()
    assert (tmp_path / "labels/old.txt").read_text() == "old"


@pytest.mark.parametrize("name", ["csv", "json", "mot", "coco"])
def test_a_deleted_file_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("realtime_ssd.sinks.coco_file._SAVE_INTERVAL", 0.0)
    monkeypatch.setattr("realtime_ssd.sinks.coco_file._SAVE_SHARE", 0)
    path = tmp_path / "o"
    sink = open_sink(f"{name}:{path}", INFO)
    sink.write(result(0))
    path.unlink()
    with pytest.raises(RealtimeSSDError, match=r"'.*o' was deleted while it was written"):
        sink.write(result(1))
    assert not path.exists()


@pytest.mark.parametrize("name", ["crops", "frames", "images", "yolo"])
def test_a_deleted_folder_is_reported(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "o"
    with open_sink(f"{name}:{folder}", INFO) as sink:
        sink.write(result(0))
        shutil.rmtree(folder)
        with pytest.raises(RealtimeSSDError, match=r"folder '.*' was deleted while"):
            sink.write(result(1))
    assert not folder.exists()
