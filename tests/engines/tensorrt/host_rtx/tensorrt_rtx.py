"""Stand-in for TensorRT-RTX: the one for TensorRT with `HOST_TENSORRT=rtx`, under another name."""

from __future__ import annotations

from tests.engines.tensorrt.host_tensorrt.tensorrt import *  # noqa: F403
from tests.engines.tensorrt.host_tensorrt.tensorrt import __version__  # noqa: F401
