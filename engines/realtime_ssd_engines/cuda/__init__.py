"""Our CUDA kernels and the one module that talks to the driver."""
