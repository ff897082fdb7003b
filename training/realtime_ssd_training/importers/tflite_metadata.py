"""Metadata of a TFLite file: normalization of the image and names of the classes.

Source: the schema of TFLite metadata, a second flatbuffer in the buffer `TFLITE_METADATA`, with
files such as the label map in a zip archive at the end of the model.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from flatbuffers import number_types as types

from realtime_ssd.core.errors import ModelError, first_line
from realtime_ssd_training.weights.tflite_file import DAMAGED, TfliteFile, root_table

__all__ = ["embedded_labels", "normalization"]

_BUFFER = "TFLITE_METADATA"
_NORMALIZATION = 1
_LARGEST_LABEL_FILE = 1 << 20


def normalization(file: TfliteFile) -> tuple[list[float], list[float]] | None:
    """Return mean and standard deviation of the image's channels, None if not stated.

    Raises:
        ModelError: If the metadata cannot be read.
    """
    data = file.metadata.get(_BUFFER)
    if not data:
        return None
    try:
        for subgraph in root_table(data).tables(3):
            for tensor in subgraph.tables(2)[:1]:
                for unit in tensor.tables(4):
                    options = unit.table(1)
                    if options and unit.scalar(0, types.Uint8Flags) == _NORMALIZATION:
                        mean = options.array(0, types.Float32Flags).tolist()
                        return mean, options.array(1, types.Float32Flags).tolist()
    except DAMAGED as error:
        raise ModelError(
            f"the metadata of the TFLite model cannot be read ({first_line(error)})"
        ) from error
    return None


def embedded_labels(path: Path) -> tuple[str, list[str]] | None:
    """Return name and lines of the label file inside a TFLite file, None if it has none.

    Raises:
        ModelError: If the label file is damaged.
    """
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            texts = [item for item in archive.infolist() if item.filename.endswith(".txt")]
            texts = [item for item in texts if "label" in item.filename.lower()] or texts
            if len(texts) != 1 or texts[0].file_size > _LARGEST_LABEL_FILE:
                return None
            return texts[0].filename, archive.read(texts[0]).decode("utf-8").splitlines()
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"the files inside '{path}' cannot be read ({first_line(error)}); it may be damaged"
        ) from error
