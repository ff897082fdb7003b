"""The threaded loop: capture, infer, render."""
