"""Converts, quantises and verifies ONNX graphs."""
