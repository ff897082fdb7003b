"""Outputs: window, video file, images, JSON lines."""

from __future__ import annotations

import cv2  # noqa: F401 - before PyAV, see realtime_ssd/sources/__init__.py
