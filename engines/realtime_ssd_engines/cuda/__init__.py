"""CUDA kernels, and access to the driver."""
