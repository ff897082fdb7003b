"""`DatasetWriter`: writes a dataset as COCO, Pascal VOC, YOLO or CSV, with its images."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from xml.sax.saxutils import escape  # nosec B406 - writes only

import cv2

from realtime_ssd.core.errors import RealtimeSSDError, UsageError
from realtime_ssd.core.files import check_output, make_folder, write_output
from realtime_ssd.core.frames import Image
from realtime_ssd_training.data.images import EXTENSIONS
from realtime_ssd_training.data.sample import Annotation, Dataset, Problem, unreadable
from realtime_ssd_training.data.yolo_layout import SPLITS, read_layout

__all__ = ["FORMATS", "DatasetWriter", "Written"]

Format = Literal["coco", "voc", "yolo", "csv"]
FORMATS: tuple[Format, ...] = ("coco", "voc", "yolo", "csv")
_QUALITY = 95
_JPEG = frozenset({".jpg", ".jpeg", ".jfif", ".jpe"})
_COPIED = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})
"""Suffixes of images that are copied; others are encoded again."""

_HEADER = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Attributes:
        spec: Specification that reads it back.
        images: Number of images.
        objects: Number of objects.
        problems: Images that were skipped, and what the format cannot express.
    """

    spec: str
    images: int
    objects: int
    problems: tuple[Problem, ...]


class DatasetWriter:
    """Writes one split of a dataset to a folder that may already have others.

    Args:
        folder: Folder to write.
        form: "coco", "voc", "yolo" or "csv".
        split: Name of the split.
        overwrite: Whether to replace a split of that name.

    Raises:
        UsageError: If the format is unknown, the split exists, or the folder cannot be written.
    """

    def __init__(
        self, folder: Path, form: Format, split: str = "train", *, overwrite: bool = False
    ) -> None:
        if form not in FORMATS:
            raise UsageError(f"there is no format '{form}'; choose from {', '.join(FORMATS)}")
        if not split or Path(split).name != split:
            raise UsageError(f"`split` must be a name, as in train, not '{split}'")
        if form == "yolo" and split not in SPLITS:
            raise UsageError(f"`split` of a YOLO dataset must be train, val or test, not '{split}'")
        if folder.is_file():
            raise UsageError(f"'{folder}' is a file; `output` must be a folder")
        self._folder, self._form, self._split = folder, form, split
        self._main = {
            "coco": folder / f"instances_{split}.json",
            "voc": folder / "ImageSets" / "Main" / f"{split}.txt",
            "yolo": folder / f"{split}.txt",
            "csv": folder / f"{split}.csv",
        }[form]
        self._images = folder / {"voc": "JPEGImages"}.get(form, f"images/{split}")
        check_output(self._main, overwrite=overwrite)
        self._taken = self._names_of_other_splits(overwrite=overwrite)

    def write(self, data: Dataset, progress: Callable[[int, int], None] | None = None) -> Written:
        """Write images and annotations; the list that makes the split complete comes last.

        Args:
            data: The dataset.
            progress: Called with the number of processed images and the number of images.

        Raises:
            UsageError: If the folder has another split with other classes, or is not writable.
            RealtimeSSDError: If a file cannot be written or no image can be read.
        """
        if self._form == "yolo":
            self._check_classes(data.labels)
        make_folder(self._images)
        items: list[tuple[str, int, Annotation]] = []
        problems: list[Problem] = []
        for index in range(len(data)):
            try:
                source = _read_image(data, index)
            except RealtimeSSDError as error:
                problems.append(unreadable(data, index, error))
                continue
            items.append((self._write_image(source), index, data.annotation(index)))
            if progress:
                progress(index + 1, len(data))
        if not items:
            raise RealtimeSSDError(f"no image of '{data.name}' can be read; {problems[0]}")
        write = {
            "coco": self._write_coco,
            "voc": self._write_voc,
            "yolo": self._write_yolo,
            "csv": self._write_csv,
        }[self._form]
        write(items, data)
        problems += self._losses(items, data)
        count = sum(len(truth.labels) for *_, truth in items)
        return Written(self._spec(), len(items), count, tuple(problems))

    def _spec(self) -> str:
        if self._form in ("voc", "yolo"):
            return f"{self._form}:{self._folder}:{self._split}"
        return f"{self._form}:{self._main}:{self._images}"

    def _losses(self, items: Sequence[tuple[str, int, Annotation]], data: Dataset) -> list[Problem]:
        """Return what the format cannot express."""
        difficult = sum(int(truth.difficult.sum()) for *_, truth in items)
        crowds = sum(int(truth.crowd.sum()) for *_, truth in items)
        texts = []
        if self._form == "voc" and crowds:
            texts.append(f"{crowds} crowd boxes became difficult objects: VOC has no crowds")
        if self._form == "yolo" and crowds + difficult:
            texts.append(
                f"{crowds} crowd boxes and {difficult} difficult objects became ordinary ones: "
                "YOLO has neither"
            )
        return [Problem(data.name, text) for text in texts]

    def _names_of_other_splits(self, *, overwrite: bool) -> set[str]:
        """Return the stems of images that another split uses."""
        if self._form != "voc" or not self._images.is_dir():
            return set()
        taken = {path.stem for path in self._images.iterdir()}
        if overwrite and self._main.is_file():
            taken -= set(self._main.read_text(encoding="utf-8").splitlines())
        return taken

    def _write_image(self, source: _Source) -> str:
        """Write an image under a name that no other has; return that name."""
        unique, number = source.stem, 1
        while unique in self._taken:
            number += 1
            unique = f"{source.stem}_{number}"
        self._taken.add(unique)
        target = self._images / f"{unique}{source.suffix}"
        if source.pixels is not None:
            quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY] if source.suffix == ".jpg" else []
            write_output(target, cv2.imencode(source.suffix, source.pixels, quality)[1].tobytes())
        elif not (target.exists() and target.samefile(source.file)):
            try:
                shutil.copyfile(source.file, target)
            except OSError as error:
                raise RealtimeSSDError(f"'{target}' cannot be written: {error.strerror}") from None
        return target.name

    def _write_coco(self, items: Sequence[tuple[str, int, Annotation]], data: Dataset) -> None:
        ids = [data.image_id(index) for _, index, _ in items]
        ids = ids if len(set(ids)) == len(ids) else list(range(1, len(ids) + 1))
        annotations: list[dict[str, Any]] = []
        for (_, _, truth), image_id in zip(items, ids, strict=True):
            for box, label, area, crowd, difficult in _rows(truth):
                x1, y1, x2, y2 = box
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": data.category_ids[label],
                        "bbox": [x1, y1, _round(x2 - x1), _round(y2 - y1)],
                        "area": _round(area),
                        "iscrowd": int(crowd),
                        **({"difficult": 1} if difficult else {}),
                    }
                )
        images = [
            {"id": image_id, "file_name": name, "width": truth.width, "height": truth.height}
            for (name, _, truth), image_id in zip(items, ids, strict=True)
        ]
        categories = [
            {"id": data.category_ids[k], "name": label} for k, label in enumerate(data.labels) if k
        ]
        content = {"images": images, "annotations": annotations, "categories": categories}
        write_output(self._main, json.dumps(content, ensure_ascii=False).encode())

    def _write_voc(self, items: Sequence[tuple[str, int, Annotation]], data: Dataset) -> None:
        stems = []
        for name, _, truth in items:
            stems.append(Path(name).stem)
            path = self._folder / "Annotations" / f"{stems[-1]}.xml"
            write_output(path, _voc_xml(name, truth, data.labels).encode())
        write_output(self._main, ("\n".join(stems) + "\n").encode())

    def _write_yolo(self, items: Sequence[tuple[str, int, Annotation]], data: Dataset) -> None:
        for name, _, truth in items:
            rows = []
            for (x1, y1, x2, y2), label, *_ in _rows(truth):
                center = (x1 + x2) / 2 / truth.width, (y1 + y2) / 2 / truth.height
                size = (x2 - x1) / truth.width, (y2 - y1) / truth.height
                rows.append(" ".join([str(label - 1), *(f"{v:.7g}" for v in (*center, *size))]))
            labels = self._folder / "labels" / self._split
            write_output(
                labels / f"{Path(name).stem}.txt", "".join(f"{r}\n" for r in rows).encode()
            )
        listed = [f"./images/{self._split}/{name}" for name, *_ in items]
        write_output(self._main, ("\n".join(listed) + "\n").encode())
        splits = [split for split in SPLITS if (self._folder / f"{split}.txt").is_file()]
        lines = [f"{split}: {split}.txt\n" for split in splits]
        names = [
            f"  {k}: {json.dumps(x, ensure_ascii=False)}\n" for k, x in enumerate(data.labels[1:])
        ]
        text = "".join(["path: .\n", *lines, "names:\n", *names])
        write_output(self._folder / "data.yaml", text.encode())

    def _check_classes(self, labels: Sequence[str]) -> None:
        """Check that other splits of the folder number the same classes alike."""
        file = self._folder / "data.yaml"
        if not file.is_file():
            return
        present = read_layout(file).names
        if [present[k] for k in sorted(present)] != list(labels[1:]):
            raise UsageError(
                f"'{file}' has other classes ({', '.join(present.values())[:80]}); convert all "
                "splits with the same `classes`, or use another folder"
            )

    def _write_csv(self, items: Sequence[tuple[str, int, Annotation]], data: Dataset) -> None:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow((*_HEADER, "difficult", "iscrowd"))
        for name, _, truth in items:
            size = (truth.width, truth.height)
            for box, label, _, crowd, difficult in _rows(truth):
                flags = (int(difficult), int(crowd))
                writer.writerow((name, *size, data.labels[label], *box, *flags))
            if not len(truth.labels):
                writer.writerow((name, *size))
        write_output(self._main, buffer.getvalue().encode())


@dataclass(frozen=True, slots=True)
class _Source:
    """An image to write: a file to copy, or pixels to encode."""

    stem: str
    suffix: str
    file: Path
    pixels: Image | None


def _read_image(data: Dataset, index: int) -> _Source:
    """Return the file of an image that every program reads alike, or else its pixels.

    Raises:
        RealtimeSSDError: If the image cannot be read.
    """
    file = data.image_file(index)
    path = file or Path(PurePosixPath(data.annotation(index).name.replace("\\", "/")).name)
    if file is not None and path.suffix.lower() in _COPIED and file.is_file():
        return _Source(path.stem, path.suffix, file, None)
    known = path.suffix.lower() in EXTENSIONS
    suffix = ".jpg" if path.suffix.lower() in _JPEG else ".png"
    return _Source(path.stem if known else path.name, suffix, path, data[index].image)


def _rows(
    truth: Annotation,
) -> list[tuple[tuple[float, float, float, float], int, float, bool, bool]]:
    """Return box in pixels, label, area, crowd and difficult of every object."""
    return [
        (
            (_round(box[0]), _round(box[1]), _round(box[2]), _round(box[3])),
            int(label),
            float(area),
            bool(crowd),
            bool(difficult),
        )
        for box, label, area, crowd, difficult in zip(
            truth.boxes, truth.labels, truth.areas, truth.crowd, truth.difficult, strict=True
        )
    ]


def _round(value: float) -> float:
    """Round to a thousandth of a pixel, beyond which float32 coordinates have no meaning."""
    return round(float(value), 3)


def _voc_xml(name: str, truth: Annotation, labels: Sequence[str]) -> str:
    """Return the annotation of an image; pixels count from 1, both corners included."""
    lines = [
        "<annotation>",
        f" <filename>{escape(name)}</filename>",
        f" <size><width>{truth.width}</width><height>{truth.height}</height>"
        "<depth>3</depth></size>",
        " <segmented>0</segmented>",
    ]
    for (x1, y1, x2, y2), label, _, crowd, difficult in _rows(truth):
        left, top = (min(round(v) + 1, end) for v, end in ((x1, truth.width), (y1, truth.height)))
        right, bottom = max(round(x2), left), max(round(y2), top)
        lines.append(
            f" <object><name>{escape(labels[label])}</name><pose>Unspecified</pose>"
            f"<truncated>0</truncated><difficult>{int(difficult or crowd)}</difficult>"
            f"<bndbox><xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax>"
            f"<ymax>{bottom}</ymax></bndbox></object>"
        )
    return "\n".join([*lines, "</annotation>\n"])
