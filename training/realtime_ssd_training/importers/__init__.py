"""Importers that convert models of other projects to ONNX files with a specification.

Only the importer of PyTorch checkpoints needs torch.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from realtime_ssd.core.errors import UsageError
from realtime_ssd.core.files import check_output
from realtime_ssd_training.importers.import_options import ImportOptions, ImportResult

__all__ = ["PYTORCH_SUFFIXES", "ImportOptions", "ImportResult", "import_model"]

PYTORCH_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".tar", ".safetensors")
"""Suffixes of PyTorch checkpoints; .tar is the end of .pth.tar."""

_IMPORTERS = {
    ".onnx": "onnx_model",
    ".caffemodel": "caffe_model",
    ".tflite": "tflite_model",
    ".pb": "tensorflow_model",
    **dict.fromkeys(PYTORCH_SUFFIXES, "pytorch_checkpoint"),
}


def import_model(path: Path, output: Path, options: ImportOptions | None = None) -> ImportResult:
    """Import a model of another project.

    Args:
        path: The model; its suffix selects the importer. A folder is a SavedModel of TensorFlow.
        output: ONNX file to write. It is written only if every check passes.
        options: What the file itself does not contain.

    Returns:
        The specification and properties of the written file.

    Raises:
        UsageError: If a file or an option does not fit.
        ModelError: If the model is damaged or of an unknown kind.

    Example:
        >>> import_model(Path("ssd.onnx"), Path("ready.onnx"))  # doctest: +SKIP
    """
    options = options or ImportOptions()
    if not path.exists():
        raise UsageError(f"the model file '{path}' does not exist")
    importer = "tensorflow_model" if path.is_dir() else _IMPORTERS.get(path.suffix.lower())
    if importer is None:
        raise UsageError(
            f"'{path}' has the unknown suffix '{path.suffix}'; use one of {', '.join(_IMPORTERS)}"
        )
    if options.keep_quantized and importer != "tflite_model":
        raise UsageError(f"`keep_quantized` is for TFLite files, not for '{path}'")
    if output.suffix.lower() != ".onnx":
        raise UsageError(f"the output '{output}' must end in .onnx")
    check_output(output, overwrite=options.overwrite)
    result: ImportResult = import_module(f"{__name__}.{importer}").import_model(
        path, output, options
    )
    return result
