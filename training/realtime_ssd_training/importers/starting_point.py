"""Start of a training run from a detector of any kind that can be imported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from realtime_ssd.core.errors import ModelError, UsageError
from realtime_ssd.core.frames import Image
from realtime_ssd.core.spec import METADATA_KEY, ModelSpec, read_spec, spec_from_json
from realtime_ssd_training.importers import PYTORCH_SUFFIXES, ImportOptions, import_model
from realtime_ssd_training.importers.onnx_graph import load
from realtime_ssd_training.importers.pytorch_checkpoint import is_checkpoint, read_network
from realtime_ssd_training.models import SSD
from realtime_ssd_training.models.checkpoint import read_checkpoint
from realtime_ssd_training.models.initial_weights import (
    InitialWeights,
    transfer_graph,
    transfer_weights,
)
from realtime_ssd_training.weights.convolutions import onnx_convolutions

__all__ = ["load_initial_weights"]


def load_initial_weights(
    model: SSD, path: Path, images: Callable[[], Sequence[Image]]
) -> InitialWeights:
    """Load all weights of a detector that fit a network; other layers keep their random weights.

    Args:
        model: Network to change.
        path: A checkpoint of this program, or any file that `import_model` reads without options;
            the definition of a Caffe model is the only .prototxt file in its folder.
        images: Returns pictures for the statistics of normalizations; called for graphs without
            normalizations only.

    Raises:
        UsageError: If the file does not exist or needs options.
        ModelError: If it is damaged, or no weights fit.
    """
    if path.is_dir() and (path / "best.safetensors").is_file():
        raise UsageError(f"'{path}' is a folder; use the file best.safetensors in it")
    if not path.exists():
        raise UsageError(f"checkpoint '{path}' does not exist")
    suffix = path.suffix.lower()
    if suffix == ".safetensors" and is_checkpoint(path):
        checkpoint = read_checkpoint(path)
        result = transfer_weights(model, checkpoint.weights, spec_from_json(checkpoint.spec))
        name = checkpoint.architecture
    elif suffix in PYTORCH_SUFFIXES:
        source, _ = read_network(path, ImportOptions())
        result = transfer_weights(model, source.state_dict(), source.spec)
        name = source.architecture
    else:
        graph, spec = _read_graph(path)
        convolutions = onnx_convolutions(graph, spec.scores_output, spec.offsets_output)
        result, name = transfer_graph(model, convolutions, spec, images()), spec.name
    if not result.loaded:
        raise ModelError(
            f"no weights in '{path}' ('{name}') fit '{model.architecture}'; use a recipe of the "
            "same network with the same options"
        )
    return result


def _read_graph(path: Path) -> tuple[onnx.ModelProto, ModelSpec]:
    """Return a detector as ONNX with its specification."""
    if path.suffix.lower() == ".onnx":
        graph = load(path)
        if any(item.key == METADATA_KEY for item in graph.metadata_props):
            return graph, read_spec(path)
    with TemporaryDirectory() as folder:
        output = Path(folder) / "model.onnx"
        imported = import_model(path, output, ImportOptions(prototxt=_prototxt(path)))
        return load(output), imported.spec


def _prototxt(path: Path) -> Path | None:
    """Return the definition of a Caffe model, None for other files."""
    if path.suffix.lower() != ".caffemodel":
        return None
    found = sorted(path.parent.glob("*.prototxt"))
    if len(found) != 1:
        raise UsageError(
            f"'{path}' needs its network definition: its folder has {len(found)} .prototxt files; "
            "leave only the deploy.prototxt of these weights there, or import the model first and "
            "use the ONNX file"
        )
    return found[0]
