"""`realtime-ssd import`: bring a model of another project into the form this program runs."""

from __future__ import annotations

from pathlib import Path

__all__ = ["import_model"]


def import_model(
    file: Path,
    prototxt: Path | None = None,
    *,
    output: Path,
    family: str | None = None,
    labels: Path | None = None,
    anchors: Path | None = None,
    spec: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Turn an SSD of another project into one ONNX file that carries all it needs.

    The kind of model is recognised from its file wherever that is unambiguous; the result is
    checked before it is kept, and then `--model OUTPUT` is all that has to be given.

    Args:
        file: Model to import: an ONNX file with raw or decoded heads (.onnx), a PyTorch checkpoint
            (.pth, .pt, .safetensors) or the weights of a Caffe model (.caffemodel).
        prototxt: Network definition of a Caffe model (deploy.prototxt).
        output: ONNX file to write.
        family: Kind of model, where its file leaves that open: tensorflow or ultralight (ONNX),
            caffe-vgg or caffe-mobilenet, torchvision, amdegroot, lufficc or qfgaohao (PyTorch).
        labels: Text file of class names, one a line.
        anchors: Default boxes (.npy or .json, P × 4: centre and size as fractions of the image)
            in the order of the model's offsets.
        spec: JSON file with fields of the specification that replace the recognised ones.
        overwrite: Replace an existing output.
    """
    from realtime_ssd.core.errors import RealtimeSSDError
    from realtime_ssd_training.importers import ImportOptions
    from realtime_ssd_training.importers import import_model as import_file

    options = ImportOptions(prototxt, family, labels, anchors, spec, overwrite)
    try:
        done = import_file(file, output, options)
    except ModuleNotFoundError as error:
        raise RealtimeSSDError(
            f"importing '{file}' needs '{error.name}'; install it with pip install "
            "'realtime-ssd[train]'"
        ) from None
    found = done.spec
    batch = "any batch size" if done.dynamic_batch else "batch size 1"
    print(
        f"{done.path}: {found.name} ({done.family}), {found.input.width}x{found.input.height}, "
        f"{found.num_boxes} default boxes, {found.num_classes} score columns, {batch}"
    )
