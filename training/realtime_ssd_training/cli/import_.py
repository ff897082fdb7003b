"""`realtime-ssd import`: convert a model of another project to ONNX with its specification."""

from __future__ import annotations

from pathlib import Path

__all__ = ["import_model"]

_PACKAGES = {
    ".safetensors": ("torch", "safetensors"),
    ".pb": ("tensorboard",),
    "": ("tensorboard",),  # folders
    **dict.fromkeys((".pth", ".pt", ".ckpt", ".tar", ".bin"), ("torch",)),
}


def import_model(
    file: Path,
    prototxt: Path | None = None,
    *,
    output: Path,
    family: str | None = None,
    labels: Path | None = None,
    anchors: Path | None = None,
    spec: Path | None = None,
    keep_quantized: bool = False,
    trust_model: bool = False,
    overwrite: bool = False,
) -> None:
    """Convert an SSD of another project to one ONNX file that includes its specification.

    The model family is detected wherever the file is unambiguous. The converted model is verified
    before it is written; `--model OUTPUT` then runs it without further options.

    Args:
        file: Model to import: an ONNX file with raw or decoded heads (.onnx), a TFLite file with
            TFLite_Detection_PostProcess (.tflite), a frozen graph (.pb) or the folder of a
            SavedModel of TensorFlow, a PyTorch checkpoint (.pth, .pt, .ckpt, .bin, .pth.tar,
            .safetensors) or the weights of a Caffe model (.caffemodel).
        prototxt: Network definition of a Caffe model (deploy.prototxt), or OpenCV's description
            (.pbtxt) of its face detector.
        output: ONNX file to write.
        family: Model family, if the file is ambiguous: jetson, tensorflow or ultralight (ONNX),
            opencv-face, caffe-vgg or caffe-mobilenet, or torchvision, amdegroot, bubbliiiing,
            lufficc, mmdet, nvidia or qfgaohao (PyTorch).
        labels: Text file of class names, one per line. A TFLite file may contain it, or
            labelmap.txt or labels.txt in its folder is taken.
        anchors: Default boxes (.npy or .json, P × 4: center and size as fractions of the image)
            in the order of the model's offsets.
        spec: JSON file with fields of the specification that override the detected ones.
        keep_quantized: Compute with the 8-bit integers of a quantized TFLite file, which is faster
            on a CPU, instead of FP32.
        trust_model: Accept an ONNX graph with operators or sizes that SSDs do not need.
        overwrite: Replace an existing output.
    """
    from realtime_ssd.core.extras import require

    require("train", *_PACKAGES.get(file.suffix.lower(), ()), purpose=f"importing '{file}'")

    from realtime_ssd.core.errors import for_command_line
    from realtime_ssd.core.printable import printable
    from realtime_ssd_training.importers import ImportOptions
    from realtime_ssd_training.importers import import_model as import_file

    options = ImportOptions(
        prototxt, family, labels, anchors, spec, overwrite, keep_quantized, trust_model
    )
    imported = import_file(file, output, options)
    model = imported.spec
    batch = "any batch size" if imported.dynamic_batch else "batch size 1"
    print(
        f"{printable(str(imported.path))}: {model.name} ({imported.family}), "
        f"{model.input.width}x{model.input.height}, {model.num_boxes} default boxes, "
        f"{model.num_classes} score columns, {batch}"
    )
    print(f"recognized: {printable(model.description)}")
    names = ", ".join(model.labels[:4]) + (", ..." if model.num_classes > 4 else "")
    origin = f" ({for_command_line(imported.labels_origin)})" if imported.labels_origin else ""
    print(printable(f"labels: {names}{origin}"))
