"""TensorRT engines: building, caching and running."""
