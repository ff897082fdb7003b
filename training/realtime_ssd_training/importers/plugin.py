"""Importers as plug-ins of `realtime-ssd models pull`; this module does not import torch."""

from __future__ import annotations

from pathlib import Path

from realtime_ssd.core.extras import missing_packages

__all__ = ["CHECKPOINTS", "ImporterPlugin"]


class ImporterPlugin:
    """Converter from the published file of a model to an ONNX file with its specification.

    Args:
        packages: Import names of the packages that the conversion needs.
    """

    def __init__(self, *packages: str) -> None:
        self._packages = packages

    def missing(self) -> list[str]:
        """Return the packages that are not installed, to be checked before a download."""
        return missing_packages(*self._packages)

    def convert(self, file: Path, output: Path) -> None:
        """Convert the model in `file` to the ONNX file `output`, replacing an existing one.

        Raises:
            ModelError: If the file is damaged or of an unknown kind.
        """
        from realtime_ssd_training.importers import ImportOptions, import_model

        import_model(file, output, ImportOptions(overwrite=True))


CHECKPOINTS = ImporterPlugin("torch", "safetensors")
