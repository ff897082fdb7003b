"""The proof on an NVIDIA GPU: parity, stability and speed (`python -m benchmarks.gpu`)."""
