"""Sources of frames: cameras, files, network streams, images and the demo."""
