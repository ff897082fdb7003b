"""Detection of missing hardware and packages."""

from __future__ import annotations

from importlib.machinery import ModuleSpec

import pytest
from realtime_ssd_engines import requirements

from realtime_ssd.core.errors import ModelError


def install(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Simulate an environment in which only some packages are installed."""

    def find_spec(name: str) -> ModuleSpec | None:
        if name == "cuda.bindings" and name not in packages:
            raise ModuleNotFoundError(name)
        return ModuleSpec(name, None) if name in packages else None

    monkeypatch.setattr(requirements, "find_spec", find_spec)


@pytest.mark.parametrize(
    ("packages", "expected"), [((), False), (("pycuda",), True), (("cuda.bindings",), True)]
)
def test_either_package_provides_bindings(
    monkeypatch: pytest.MonkeyPatch, packages: tuple[str, ...], expected: bool
) -> None:
    install(monkeypatch, *packages)
    assert requirements.has_bindings() is expected


def test_all_missing_parts_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    monkeypatch.setattr(requirements, "cuda_version", lambda: None)
    assert requirements.missing_parts() == [
        "an NVIDIA driver",
        "the Python packages tensorrt and pycuda",
    ]
    install(monkeypatch, "tensorrt", "pycuda")
    monkeypatch.setattr(requirements, "cuda_version", lambda: (13, 0))
    monkeypatch.setattr(requirements, "find_gpus", tuple)
    with pytest.raises(ModelError, match="cannot run: missing an NVIDIA GPU that the driver"):
        requirements.require_gpu("run")
    monkeypatch.setattr(requirements, "find_gpus", lambda: ("a GPU",))
    requirements.require_gpu("run")
