"""Inference backends: ONNX Runtime on the CPU, TensorRT on an NVIDIA GPU."""
