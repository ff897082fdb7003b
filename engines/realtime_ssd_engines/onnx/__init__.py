"""Converts, quantizes and verifies ONNX graphs."""
