"""Detection of missing hardware and packages, and the extras that install them."""

from __future__ import annotations

import re
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from realtime_ssd_engines import plugin, requirements
from realtime_ssd_engines.cuda import compile as compile_module
from realtime_ssd_engines.plugin import TENSORRT
from realtime_ssd_engines.tensorrt import compat, flavors, library

from realtime_ssd.core.errors import ModelError
from realtime_ssd.core.gpu import Gpu

ROOT = Path(__file__).parents[2]
ADA = Gpu(0, "RTX 4090", (8, 9), 24 << 30)
HOPPER = Gpu(0, "H100", (9, 0), 80 << 30)
VOLTA = Gpu(0, "V100", (7, 0), 16 << 30)


def install(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Simulate an environment in which only some packages are installed."""

    def find_spec(name: str) -> ModuleSpec | None:
        if name == "cuda.bindings" and name not in packages:
            raise ModuleNotFoundError(name)
        return ModuleSpec(name, None) if name in packages else None

    monkeypatch.setattr(requirements, "find_spec", find_spec)


def set_machine(monkeypatch: pytest.MonkeyPatch, cuda: tuple[int, int] | None, *gpus: Gpu) -> None:
    """Simulate a driver and its GPUs."""
    flavors.usable_flavors.cache_clear()
    for module in (requirements, flavors):
        monkeypatch.setattr(module, "find_gpus", lambda: gpus)
    monkeypatch.setattr(requirements, "cuda_version", lambda: cuda)


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
    set_machine(monkeypatch, None)
    assert requirements.missing_parts() == [
        "an NVIDIA driver",
        "the Python packages tensorrt and cuda-bindings",
    ]
    assert "tensorrt-rtx-cu13-bindings" in requirements.missing_parts("rtx")[1]
    install(monkeypatch, "tensorrt", "pycuda")
    set_machine(monkeypatch, (13, 0))
    with pytest.raises(ModelError, match="cannot run: missing an NVIDIA GPU that the driver") as e:
        requirements.require_gpu("run")
    assert "pip install" not in str(e.value)
    set_machine(monkeypatch, (13, 0), ADA)
    requirements.require_gpu("run")


@pytest.mark.parametrize(
    ("cuda", "gpus", "extra"),
    [
        (None, (), "gpu"),
        ((13, 0), (HOPPER,), "gpu"),
        ((12, 4), (HOPPER,), "gpu-cu12"),
        ((13, 0), (ADA, VOLTA), "gpu-cu12"),
    ],
)
def test_the_extra_depends_on_driver_and_gpu(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    cuda: tuple[int, int] | None,
    gpus: tuple[Gpu, ...],
    extra: str,
) -> None:
    install(monkeypatch)
    set_machine(monkeypatch, cuda, *gpus)
    assert requirements.install_command() == f"pip install 'realtime-ssd[{extra}]'"
    assert "[rtx]" in requirements.install_command("rtx")
    with pytest.raises(ModelError, match=re.escape(f"[{extra}]'")):
        requirements.require_gpu("run")
    monkeypatch.setattr(requirements, "_JETPACK", tmp_path)
    assert "[jetson]" in requirements.install_command()


def test_the_sources_name_only_extras_that_exist() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    section = text.split("[project.optional-dependencies]")[1].split("\n[project.scripts]")[0]
    extras = set(re.findall(r"^([\w-]+) = \[", section, re.MULTILINE))
    assert extras >= {"gpu", "gpu-cu12", "rtx", "jetson", "pycuda"}
    named = set()
    for folder in ("realtime_ssd", "engines", "training", "docs"):
        for file in (ROOT / folder).rglob("*.[mp][dy]"):
            for names in re.findall(r"realtime-ssd\[([\w,-]+)\]", file.read_text()):
                named.update(names.split(","))
    assert named
    assert named <= extras


@pytest.mark.parametrize(
    ("packages", "gpu", "usable", "explanation"),
    [
        (("tensorrt", "tensorrt_rtx_bindings"), ADA, ("tensorrt", "rtx"), "run with TensorRT"),
        (
            ("tensorrt_rtx_bindings",),
            ADA,
            ("rtx",),
            "run with TensorRT-RTX; TensorRT is not installed",
        ),
        (("tensorrt",), HOPPER, ("tensorrt",), "run with TensorRT; TensorRT-RTX is not installed"),
        (
            ("tensorrt_rtx_bindings",),
            HOPPER,
            (),
            "not available; TensorRT is not installed; TensorRT-RTX does not support GPU 'H100' "
            "with compute capability 9.0",
        ),
        (("tensorrt", "tensorrt_rtx_bindings"), None, (), "TensorRT-RTX needs a GPU to run"),
    ],
)
def test_tensorrt_is_preferred_and_the_choice_is_explained(
    monkeypatch: pytest.MonkeyPatch,
    packages: tuple[str, ...],
    gpu: Gpu | None,
    usable: tuple[str, ...],
    explanation: str,
) -> None:
    install(monkeypatch, *packages)
    set_machine(monkeypatch, (13, 0), *([gpu] if gpu else []))
    monkeypatch.setattr(library, "library", lambda flavor: None)
    monkeypatch.setattr(
        compat,
        "supported_capabilities",
        lambda flavor: ("8.6", "8.9") if flavor == "rtx" else (),
    )
    assert flavors.usable_flavors()[0] == usable
    assert explanation in flavors.explain_flavor()
    flavors.usable_flavors.cache_clear()


def test_a_flavor_that_fails_to_load_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(flavor: str) -> None:
        raise ModelError(f"{flavor} cannot be loaded (libnvinfer.so.10: not found)")

    install(monkeypatch, "tensorrt")
    set_machine(monkeypatch, (13, 0), ADA)
    monkeypatch.setattr(library, "library", fail)
    assert flavors.usable_flavors()[0] == ()
    assert "libnvinfer.so.10: not found" in flavors.explain_flavor()
    flavors.usable_flavors.cache_clear()


@pytest.mark.parametrize(
    ("cuda", "gpu", "fixes"),
    [
        ((13, 0), HOPPER, {"TensorRT": "pip install 'realtime-ssd[gpu]'"}),
        ((12, 4), HOPPER, {"TensorRT": "pip install 'realtime-ssd[gpu-cu12]'"}),
        ((13, 0), ADA, {}),
        (None, None, {}),
    ],
)
def test_doctor_names_the_extra_that_makes_engines_run(
    monkeypatch: pytest.MonkeyPatch,
    cuda: tuple[int, int] | None,
    gpu: Gpu | None,
    fixes: dict[str, str],
) -> None:
    install(monkeypatch, "tensorrt_rtx_bindings", "cuda.bindings")
    set_machine(monkeypatch, cuda, *([gpu] if gpu else []))
    monkeypatch.setattr(plugin, "find_gpus", lambda: (gpu,) if gpu else ())
    monkeypatch.setattr(compile_module, "compiler_name", lambda: "NVRTC 13.0")
    monkeypatch.setattr(library, "library", lambda flavor: None)
    monkeypatch.setattr(compat, "supported_capabilities", lambda flavor: ("8.6", "8.9"))
    rows = {name: (found, fix) for name, found, fix in TENSORRT.diagnose()}
    assert {name: fix for name, (_, fix) in rows.items() if fix} == fixes
    assert ("run with TensorRT-RTX" in rows["engines"][0]) is (gpu == ADA)
    flavors.usable_flavors.cache_clear()
