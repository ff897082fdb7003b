"""Benchmarks behind every figure that the project publishes."""
