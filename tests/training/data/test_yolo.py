"""YOLO datasets: folder layouts, class names, label rows and defects."""

from __future__ import annotations

from pathlib import Path

import pytest
from realtime_ssd_training.data import open_dataset

from realtime_ssd.core.errors import UsageError
from tests.training.data.builders import labeled_boxes, problem_texts, write_image, write_text

ROW = "0 0.5 0.5 0.5 0.2\n"
BOX = [10, 12, 30, 18]  # of an image of 40 x 30 pixels


def write_yolo(folder: Path, text: str = ROW, names: str = "names: [cat, dog]\n") -> str:
    """Write one image with a label file."""
    write_image(folder / "images" / "a.png")
    write_text(folder / "labels" / "a.txt", text)
    write_text(folder / "data.yaml", names)
    return f"yolo:{folder}"


def test_parallel_trees_of_images_and_labels(tmp_path: Path) -> None:
    data = open_dataset(write_yolo(tmp_path, "1 0.5 0.5 0.5 0.2\n0 0.25 0.5 0.1 1.0\n"))
    assert data.labels == ("background", "cat", "dog")
    assert labeled_boxes(data) == [("dog", BOX), ("cat", [8, 0, 12, 30])]
    assert data.annotation(0).name == "images/a.png"
    assert data[0].image.shape == (30, 40, 3)
    assert not data.problems


LAYOUTS = {
    "split below images": ("images/{}/a.png", "labels/{}/a.txt"),
    "split above images": ("{}/images/a.png", "{}/labels/a.txt"),
    "next to the image": ("{}/a.png", "{}/a.txt"),
    "next to the image, in images": ("images/{}/a.png", "images/{}/a.txt"),
    "deeper": ("images/{}/city/a.png", "labels/{}/city/a.txt"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_with_splits(tmp_path: Path, layout: str) -> None:
    image, label = LAYOUTS[layout]
    write_text(tmp_path / "classes.txt", "cat\ndog\n")
    for split, number in (("train", 0), ("valid", 1)):
        write_image(tmp_path / image.format(split))
        write_text(tmp_path / label.format(split), f"{number} 0.5 0.5 0.5 0.2\n")
    assert labeled_boxes(open_dataset(f"yolo:{tmp_path}:train")) == [("cat", BOX)]
    assert labeled_boxes(open_dataset(f"yolo:{tmp_path}:val")) == [("dog", BOX)]
    whole = open_dataset(f"yolo:{tmp_path}")
    assert len(whole) == 2
    assert not whole.problems


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_dataset_below_a_folder_named_images(tmp_path: Path, layout: str) -> None:
    root = tmp_path / "images" / "animals"
    image, label = (root / text.format("train") for text in LAYOUTS[layout])
    write_text(root / "classes.txt", "cat\ndog\n")
    write_image(image)
    write_text(label, ROW)
    assert labeled_boxes(open_dataset(f"yolo:{root}:train")) == [("cat", BOX)]


YAMLS = {
    "list": "names: [cat, dog]",
    "rows": "names:\n- cat\n- dog",
    "mapping": "nc: 2\nnames:\n  1: dog\n  0: cat",
    "quoted": "names: [\"cat\", 'dog']",
}


@pytest.mark.parametrize("text", YAMLS.values(), ids=YAMLS)
def test_class_names_from_yaml(tmp_path: Path, text: str) -> None:
    name = write_yolo(tmp_path, names=text)
    assert open_dataset(name).labels == ("background", "cat", "dog")
    assert open_dataset(f"yolo:{tmp_path / 'data.yaml'}").labels == ("background", "cat", "dog")


def test_class_names_that_yaml_would_convert(tmp_path: Path) -> None:
    data = open_dataset(write_yolo(tmp_path, names="names: [no, 12, null, 1e3]"))
    assert data.labels == ("background", "no", "12", "null", "1e3")


@pytest.mark.parametrize("file", ["classes.txt", "obj.names", "labels/classes.txt", "voc.names"])
def test_class_names_from_a_list(tmp_path: Path, file: str) -> None:
    name = write_yolo(tmp_path)
    (tmp_path / "data.yaml").unlink()
    (tmp_path / file).write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n")
    data = open_dataset(name)
    assert data.labels == ("background", "cat", "dog")
    assert not data.problems


SPLITS = {
    "from the yaml": "train: images/train\nval: images/valid",
    "one level too high": "train: ../images/train\nval: ../images/valid",
    "from a path": "path: .\ntrain: images/train\nval: images/valid",
    "path of another machine": "path: ../datasets/x\ntrain: images/train\nval: images/valid",
    "lists of folders": "train: [images/train]\nvalid: [images/valid]",
    "lists of files": "train: train.txt\nval: valid.txt",
}


@pytest.mark.parametrize("text", SPLITS.values(), ids=SPLITS)
def test_splits_from_yaml(tmp_path: Path, text: str) -> None:
    write_text(tmp_path / "dataset.yaml", f"names: [cat, dog]\n{text}\n")
    for split, number in (("train", 0), ("valid", 1)):
        image = write_image(tmp_path / "images" / split / f"{split}.png")
        write_text(tmp_path / "labels" / split / f"{split}.txt", f"{number} 0.5 0.5 0.5 0.2\n")
        write_text(tmp_path / f"{split}.txt", f"./{image.relative_to(tmp_path)}\r\n\r\n")
    assert labeled_boxes(open_dataset(f"yolo:{tmp_path}:train")) == [("cat", BOX)]
    assert labeled_boxes(open_dataset(f"yolo:{tmp_path}:val")) == [("dog", BOX)]
    assert len(open_dataset(f"yolo:{tmp_path}")) == 2


def test_a_missing_split_of_the_yaml_file(tmp_path: Path) -> None:
    name = write_yolo(tmp_path, names="names: [cat, dog]\ntrain: images\ntest: images/test\n")
    assert problem_texts(open_dataset(name)) == [
        "data.yaml: the images of split 'test' do not exist; it was skipped"
    ]
    with pytest.raises(UsageError, match=r"no split 'test' in '.*'; choose from train, test"):
        open_dataset(f"{name}:test")


def test_an_image_without_a_label_file_has_no_objects(tmp_path: Path) -> None:
    name = write_yolo(tmp_path)
    write_image(tmp_path / "images" / "b.png")
    write_text(tmp_path / "labels" / "c.txt", ROW)
    data = open_dataset(name)
    assert [len(data.annotation(k).labels) for k in range(len(data))] == [1, 0]
    assert problem_texts(data) == [
        "b.png: 1 images have no label file and count as images without objects",
        "c.txt: it has no image; it was skipped",
    ]


def test_polygons_become_bounding_boxes(tmp_path: Path) -> None:
    text = "1 0.25 0.4 0.75 0.5 0.5 0.6\n0 0.25 0.4 0.75 0.4 0.75 0.6 0.25 0.6\n"
    assert labeled_boxes(open_dataset(write_yolo(tmp_path, text))) == [("dog", BOX), ("cat", BOX)]


def test_keypoints_are_ignored(tmp_path: Path) -> None:
    names = "names: [cat, dog]\nkpt_shape: [2, 2]\n"
    data = open_dataset(write_yolo(tmp_path, "0 0.5 0.5 0.5 0.2 0.1 0.1 0.9 0.9\n", names))
    assert labeled_boxes(data) == [("cat", BOX)]


DEFECTS = {
    "0 20 15 20 6": "1 rows with values far above 1, although boxes are fractions and not pixels",
    "0 0.5 0.5 0.5": "1 rows that are neither 'class cx cy width height' nor a polygon",
    "0 0.5 0.5 0.5 0.2 0.9": "1 rows that are neither 'class cx cy width height' nor a polygon",
    "bird 0.5 0.5 0.5 0.2": "1 rows with values that are not numbers",
    "0 nan 0.5 0.5 0.2": "1 rows with values that are not numbers",
    "0 inf 0.5 0.5 0.2": "1 rows with values that are not numbers",
    "0.5 0.5 0.5 0.5 0.2": "1 rows without a class number at the start",
    "-1 0.5 0.5 0.5 0.2": "1 rows without a class number at the start",
}


@pytest.mark.parametrize("row", DEFECTS)
def test_invalid_rows_are_reported_and_skipped(tmp_path: Path, row: str) -> None:
    data = open_dataset(write_yolo(tmp_path, f"{ROW}{row}\n"))
    assert labeled_boxes(data) == [("cat", BOX)]
    assert problem_texts(data) == [f"a.txt: {DEFECTS[row]}, first in line 2; they were skipped"]


BOX_DEFECTS = {
    "0 0.5 0.5 -0.5 0.2": "1 empty or inverted boxes were skipped",
    "0 0.5 0.5 0 0.2": "1 empty or inverted boxes were skipped",
    "0 1.4 0.5 0.1 0.2": "1 boxes outside the image were skipped",
    "7 0.5 0.5 0.5 0.2": "class 'class 7' is not among the labels; 1 boxes in 1 files were skipped",
}


@pytest.mark.parametrize("row", BOX_DEFECTS)
def test_invalid_boxes_are_reported_and_skipped(tmp_path: Path, row: str) -> None:
    data = open_dataset(write_yolo(tmp_path, f"{ROW}{row}\n"))
    assert labeled_boxes(data) == [("cat", BOX)]
    assert problem_texts(data) == [f"a.png: {BOX_DEFECTS[row]}"]


def test_a_box_that_exceeds_the_image_is_clipped(tmp_path: Path) -> None:
    data = open_dataset(write_yolo(tmp_path, "0 0.0 0.5 0.5 0.2\n"))
    assert labeled_boxes(data) == [("cat", [0, 12, 10, 18])]
    assert problem_texts(data) == ["a.png: 1 boxes that exceed the image were clipped"]


def test_windows_line_endings_byte_order_mark_and_duplicates(tmp_path: Path) -> None:
    name = write_yolo(tmp_path)
    (tmp_path / "labels" / "a.txt").write_bytes(b"\xef\xbb\xbf" + ROW.strip().encode() + b"\r\n")
    assert labeled_boxes(open_dataset(name)) == [("cat", BOX)]
    write_text(tmp_path / "labels" / "a.txt", ROW * 3)
    data = open_dataset(name)
    assert labeled_boxes(data) == [("cat", BOX)]
    assert problem_texts(data) == ["a.txt: 2 duplicate rows were skipped"]


def test_an_image_with_a_binary_label_file_is_skipped(tmp_path: Path) -> None:
    name = write_yolo(tmp_path)
    write_image(tmp_path / "images" / "b.png")
    (tmp_path / "labels" / "b.txt").write_bytes(b"\xff\xfe\x00\x81")
    data = open_dataset(name)
    assert len(data) == 1
    assert problem_texts(data) == [
        "b.txt: the label file cannot be read as text; its image was skipped"
    ]


def test_unicode_file_and_class_names(tmp_path: Path) -> None:
    write_text(tmp_path / "data.yaml", "names: [Straßenbahn, 自転車]\n")
    write_image(tmp_path / "images" / "Żółw 亀.png")
    write_text(tmp_path / "labels" / "Żółw 亀.txt", "1 0.5 0.5 0.5 0.2\n")
    data = open_dataset(f"yolo:{tmp_path}")
    assert labeled_boxes(data) == [("自転車", BOX)]
    assert data[0].image.shape == (30, 40, 3)


def test_yaml_tags_construct_no_python_objects(tmp_path: Path) -> None:
    text = f"names: !!python/object/apply:os.mkdir [{tmp_path / 'made'}]\n"
    assert open_dataset(write_yolo(tmp_path, names=text)).labels[1:] == (str(tmp_path / "made"),)
    assert not (tmp_path / "made").exists()


def test_a_dataset_without_label_files_is_an_error(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.png")
    write_text(tmp_path / "classes.txt", "cat\n")
    with pytest.raises(UsageError, match=r"no image of .* has a label file, the first is .*a\.png"):
        open_dataset(f"yolo:{tmp_path}")


USAGE = {
    "no folder": ("yolo:{}/nowhere", "", "the folder .* does not exist"),
    "no names": ("yolo:{}", "", "does not name its classes; add data.yaml"),
    "wrong split": ("yolo:{}:night", "names: [cat]", "no split 'night' in .*choose from"),
    "broken yaml": ("yolo:{}", "names: [cat", "is not valid YAML"),
    "deep yaml": ("yolo:{}", "[" * 5000, "is not valid YAML"),
    "names of no kind": ("yolo:{}", "names: 12", "is not a list of class names"),
    "nested names": ("yolo:{}", "names: [[cat]]", "is not a list of class names"),
    "mapping of texts": ("yolo:{}", "names: {cat: dog}", "is not a list of class names"),
    "no text": ("yolo:{}", "bytes", "cannot be read as UTF-8"),
}


@pytest.mark.parametrize("case", USAGE)
def test_usage_errors_are_one_line(tmp_path: Path, case: str) -> None:
    name, yaml, message = USAGE[case]
    write_image(tmp_path / "images" / "a.png")
    write_text(tmp_path / "labels" / "a.txt", ROW)
    if yaml:
        (tmp_path / "data.yaml").write_bytes(b"\xff\xfe" if yaml == "bytes" else yaml.encode())
    with pytest.raises(UsageError, match=message) as caught:
        open_dataset(name.format(tmp_path))
    assert len(str(caught.value).splitlines()) == 1
