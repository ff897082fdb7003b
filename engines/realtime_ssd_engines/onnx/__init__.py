"""Precision, quantisation and verification of ONNX graphs."""
