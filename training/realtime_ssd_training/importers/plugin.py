"""Importers as plug-ins of `realtime-ssd models pull`; this module does not import torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from realtime_ssd.core.extras import missing_packages

__all__ = ["CHECKPOINTS", "ONNX", "TENSORFLOW", "TFLITE", "TFLITE_INT8", "ImporterPlugin"]


class ImporterPlugin:
    """Converter from the published file of a model to an ONNX file with its specification.

    Args:
        packages: Import names of the packages that the conversion needs.
        keep_quantized: Whether a quantized network keeps its integers.
    """

    def __init__(self, *packages: str, keep_quantized: bool = False) -> None:
        self._packages = packages
        self._keep_quantized = keep_quantized

    def missing(self) -> list[str]:
        """Return the packages that are not installed, to be checked before a download."""
        return missing_packages(*self._packages)

    def convert(self, file: Path, output: Path, label_set: str = "") -> None:
        """Convert a model to an ONNX file.

        Args:
            file: The published file.
            output: ONNX file to create or replace.
            label_set: Name of the set of classes in `LABEL_SETS` if the file has no class names.

        Raises:
            ModelError: If the file is damaged or of an unknown kind.
        """
        from realtime_ssd_training.importers import ImportOptions, import_model
        from realtime_ssd_training.importers.class_names import LABEL_SETS

        options = ImportOptions(overwrite=True, keep_quantized=self._keep_quantized)
        if not label_set:
            import_model(file, output, options)
            return
        with TemporaryDirectory() as folder:
            labels = Path(folder) / f"{label_set}.txt"
            labels.write_text("\n".join(LABEL_SETS[label_set]), encoding="utf-8")
            import_model(file, output, replace(options, labels=labels))


CHECKPOINTS = ImporterPlugin("torch", "safetensors")
TFLITE = ImporterPlugin("flatbuffers")
TFLITE_INT8 = ImporterPlugin("flatbuffers", keep_quantized=True)
TENSORFLOW = ImporterPlugin("tensorboard")
ONNX = ImporterPlugin()
