"""Importers as plug-ins of `realtime-ssd models pull`; imports no torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

__all__ = ["CHECKPOINTS", "ImporterPlugin"]


class ImporterPlugin:
    """Converts the published file of a model into an ONNX file with its specification.

    Args:
        packages: Import names of the packages it needs.
    """

    def __init__(self, *packages: str) -> None:
        self._packages = packages

    def missing(self) -> list[str]:
        """Return the packages that are not installed, so that nothing is downloaded in vain."""
        return [name for name in self._packages if find_spec(name) is None]

    def convert(self, file: Path, output: Path) -> None:
        """Write the model in `file` to the ONNX file `output`, replacing an older one.

        Raises:
            ModelError: If the file is damaged or of an unknown kind.
        """
        from realtime_ssd_training.importers import ImportOptions, import_model

        import_model(file, output, ImportOptions(overwrite=True))


CHECKPOINTS = ImporterPlugin("torch", "safetensors")
