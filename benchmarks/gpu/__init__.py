"""The proof on an NVIDIA GPU: parity, stability and speed in one run (`python -m benchmarks.gpu`)."""
