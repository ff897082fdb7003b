from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from realtime_ssd.cli.scene_options import with_default_tracker
from tests.cli.program import run
from tests.tiny import bright_cell

DEMO = "demo:160x90,frames=40"


def test_a_tracker_without_a_name_is_the_default_one() -> None:
    assert with_default_tracker(["--track"]) == ["--track", "bytetrack"]
    assert with_default_tracker(["--track", "--json", "-"]) == [
        "--track",
        "bytetrack",
        "--json",
        "-",
    ]
    assert with_default_tracker(["--track", "clip.mp4"]) == ["--track", "bytetrack", "clip.mp4"]
    assert with_default_tracker(["--track", "sort"]) == ["--track", "sort"]
    assert with_default_tracker(["--track", "deepsort"]) == ["--track", "deepsort"]


def test_tracks_zones_lines_and_counts_together(tmp_path: Path) -> None:
    pytest.importorskip("trackers")
    zones = tmp_path / "z.toml"
    zones.write_text("[lines]\nstop = [[0.0, 0.7], [1.0, 0.7]]\n")
    finished = run(
        "--source", "demo:320x180,frames=90", "--source", "demo:320x180,seed=3,frames=60",
        "--track", "--traces", 1, "--zone", "road:0,0.4,1,0.4,1,1,0,1", "--zones", zones,
        "--dwell", 0.5, "--counts", tmp_path / "c.csv", "--counts-interval", 1, "--smooth", 0.1,
        "--min-size", 8, "--heatmap", tmp_path / "heat.png", "--json", tmp_path / "o.jsonl",
        "--stats", tmp_path / "stats.json",
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert len(lines) == 150
    tracks = {row["track_id"] for line in lines for row in line["detections"]} - {None}
    assert len(tracks) > 5
    assert all("zones" in row for line in lines for row in line["detections"])
    events = [event for line in lines for event in line.get("events", ())]
    with (tmp_path / "c.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for kind in ("enter", "leave", "dwell"):
        counted = sum(int(row["count"]) for row in rows if row["event"] == kind)
        assert counted == sum(event["kind"] == kind for event in events), kind
    crossed = sum(int(row["count"]) for row in rows if row["name"] == "stop")
    assert crossed == sum(event["kind"] == "cross" for event in events) > 0
    assert "stop: " in finished.stderr
    assert (tmp_path / "heat-1.png").is_file()
    assert (tmp_path / "heat-2.png").is_file()
    stages = json.loads((tmp_path / "stats.json").read_text())["latency_ms"]
    assert {"track", "smooth", "road", "stop", "heat_map", "size_filter"} <= set(stages)


@pytest.mark.parametrize("method", ["fill", "blur", "pixelate"])
def test_no_output_has_the_original_pixels(tiny: Path, tmp_path: Path, method: str) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    # A bright cell full of noise: what remains of the noise is what can be recognized.
    image = bright_cell((1, 1))
    noise = np.random.default_rng(0).integers(-60, 60, image.shape)
    image = np.where(image > 100, np.clip(image - 60 + noise, 130, 255), image).astype(np.uint8)
    cv2.imwrite(str(folder / "a.png"), image)
    found = run(
        "--source", folder, "--model", tiny, f"--{method}", "all", "--blur-margin", 0,
        "--labels", "none", "--output", tmp_path / "out", "--json", tmp_path / "o.jsonl",
        "--save-crops", tmp_path / "crops", "--save-frames", "all",
        "--frames-folder", tmp_path / "frames", "--yolo", tmp_path / "yolo",
        "--heatmap", tmp_path / "heat.png",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    (row,) = json.loads((tmp_path / "o.jsonl").read_text())["detections"]
    heat = cv2.imread(str(tmp_path / "heat.png"))
    assert heat is not None
    x1, y1, x2, y2 = (round(value) for value in row["box"])
    original = image[y1 + 4 : y2 - 4, x1 + 4 : x2 - 4].astype(float)
    assert original.std() > 20
    written = [p for p in tmp_path.rglob("*") if p.suffix in (".png", ".jpg", ".jpeg")]
    written = [path for path in written if path.parent != folder]
    assert len(written) >= 3
    for path in written:
        picture = cv2.imread(str(path))
        assert picture is not None
        crop = picture.shape[0] < image.shape[0]
        box = picture if crop else picture[y1:y2, x1:x2]
        inside = cv2.resize(box, (x2 - x1, y2 - y1))[4:-4, 4:-4].astype(float)
        flat = inside.std() < 1
        correlation = 0 if flat else np.corrcoef(inside.ravel(), original.ravel())[0, 1]
        assert abs(correlation) < 0.3, (path, correlation)


def test_what_filters_remove_is_covered(tiny: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), bright_cell((1, 1)))
    found = run(
        "--source", tmp_path / "a.png", "--model", tiny, "--fill", "all", "--min-size", 60,
        "--output", tmp_path / "b.png", "--json", tmp_path / "o.jsonl",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert json.loads((tmp_path / "o.jsonl").read_text())["detections"] == []
    written = cv2.imread(str(tmp_path / "b.png"))
    assert written is not None
    assert not written[32:58, 42:78].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--zone", "a:0,0,1,1"], "zone 'a' has 2 corners; it needs at least 3"),
        (["--zone", "a:0,0,9,9,9,0,0,9"], "zone 'a' crosses itself"),
        (["--zone", "a:0,0,900,9,9,90"], "'a' has the corner 900,9 outside the picture"),
        (["--line", "a:5,5,5,5"], "line 'a' has no length"),
        (["--line", "a:0,0,1,1", "--line", "a:0,1,1,0"], "two zones or lines are called 'a'"),
        (["--line", "a:0,0,1,1", "--track", "off"], "--line needs tracks; remove --track off"),
        (["--blur", "prson"], "--blur has the unknown class 'prson'; choose from person"),
        (["--blur", "persn", "--blur-model", "street"], "--blur has the unknown class 'persn'"),
        (["--classes", "car", "--fill", "person"], "--fill covers person, which --classes leaves"),
        (["--heatmap", "heat.xyz"], "--heatmap must be a picture (.png, .jpg, .jpeg, .webp, .bmp)"),
        (["--counts", "-", "--zone", "a:0,0,1,0,1,1"], "'-' cannot be written: it is standard"),
        (["--zone", "a:0,0,1,0,1.01,1"], "'a' is outside the picture: fractions of the frame go"),
        (["--zone", "a:0,0,1,0,1,1", "--track", "off", "--counts", "c.csv"], "--zone needs tracks"),
        (["--track", "deepsort"], '"bytetrack"'),
        (["--blur-model", "street"], "--blur-model needs --blur, --pixelate or --fill"),
        (["--counts", "c.csv"], "--counts needs something to count"),
        (["--dwell", "3"], "--dwell needs a zone"),
        (["--zones", "absent.toml"], "'absent.toml' cannot be read: No such file"),
        (["--calibrate", "0,0=0,0"], "--calibrate needs at least 4 points, not 1"),
        (["--min-size", "9", "--max-size", "3"], "--max-size must be at least --min-size"),
        (["--traces", "-1"], "--traces must be between 0 and 3600 seconds, not -1"),
    ],
)
def test_wrong_options_are_one_sentence(options: list[str], message: str, tmp_path: Path) -> None:
    finished = run("--source", DEMO, *options, "--json", tmp_path / "o.jsonl")
    assert finished.returncode == 2, finished.stderr
    last = finished.stderr.splitlines()[-1]
    assert last.startswith("realtime-ssd: ")
    assert message in last
    assert not (tmp_path / "o.jsonl").exists()
