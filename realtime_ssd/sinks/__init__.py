"""Outputs: window, video file, images, JSON lines."""
