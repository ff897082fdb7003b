"""Models of others, brought into the form this project runs: one ONNX file with its contract.

This package and its ONNX and Caffe importers need no torch; only checkpoints do.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from realtime_ssd.core.errors import UsageError
from realtime_ssd_training.importers.options import Imported, ImportOptions

__all__ = ["ImportOptions", "Imported", "import_model"]

_READERS = {
    ".onnx": "realtime_ssd_training.importers.onnx_heads",
    ".caffemodel": "realtime_ssd_training.importers.caffe",
    ".pth": "realtime_ssd_training.importers.checkpoints",
    ".pt": "realtime_ssd_training.importers.checkpoints",
    ".safetensors": "realtime_ssd_training.importers.checkpoints",
}


def import_model(path: Path, output: Path, options: ImportOptions | None = None) -> Imported:
    """Import a model of another project.

    Args:
        path: The model's file; its ending chooses the importer.
        output: ONNX file to write; it appears only when every check has passed.
        options: What the user told about the model beyond its file.

    Returns:
        What was written.

    Raises:
        UsageError: If a file or an option does not fit.
        ModelError: If the model is damaged or of no known kind.

    Example:
        >>> import_model(Path("ssd.onnx"), Path("ready.onnx"))  # doctest: +SKIP
    """
    from realtime_ssd_training.importers.saving import check_target

    options = options or ImportOptions()
    if not path.is_file():
        raise UsageError(f"the model file '{path}' does not exist")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UsageError(
            f"'{path}' has the unknown ending '{path.suffix}'; give one of {', '.join(_READERS)}"
        )
    check_target(output, overwrite=options.overwrite)
    result: Imported = import_module(reader).import_model(path, output, options)
    return result
