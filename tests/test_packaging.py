"""Metadata, extras and locked versions agree with each other."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import realtime_ssd
from realtime_ssd.core.registry import GROUPS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK_TEXT = (ROOT / "uv.lock").read_text()
LOCK: list[dict[str, Any]] = tomllib.loads(LOCK_TEXT)["package"]
PINS = re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
CUDA_PACKAGES = re.compile(r"^(nvidia-(?!cuda-nvrtc$)|triton$|cuda-toolkit$)")
"""Packages that only the CUDA build of PyTorch needs; the tests of the kernels need NVRTC too."""


def locked_requirements() -> set[tuple[str, str, str]]:
    """Return name, version specifier and marker of the project's requirements in uv.lock."""
    (project,) = (package for package in LOCK if package["name"] == PROJECT["name"])
    return {
        (item["name"], item.get("specifier", ""), item.get("marker", "").replace("'", '"'))
        for item in project["metadata"]["requires-dist"]
    }


def declared_requirements() -> set[tuple[str, str, str]]:
    """Return the same of pyproject.toml."""
    requirements = [(text, "") for text in PROJECT["dependencies"]]
    for extra, texts in PROJECT["optional-dependencies"].items():
        requirements += [(text, f'extra == "{extra}"') for text in texts]
    declared = set()
    for text, extra in requirements:
        requirement, _, condition = text.partition(";")
        name, specifier = re.fullmatch(r"([\w-]+)(.*)", requirement.strip()).groups()  # type: ignore[union-attr]
        condition = condition.strip().replace("'", '"')
        condition = condition.replace("python_version", "python_full_version")
        declared.add((name, specifier, " and ".join(filter(None, [condition, extra]))))
    return declared


def test_lock_is_up_to_date() -> None:
    assert locked_requirements() == declared_requirements(), "run .ci/lock"


def test_lock_names_only_public_addresses() -> None:
    addresses = re.findall(r"[a-z+]+://[^/\"]+", LOCK_TEXT)
    assert set(addresses) == {"https://pypi.org", "https://files.pythonhosted.org"}


def test_constraints_are_those_of_the_lock() -> None:
    locked = {(package["name"], package.get("version", "")) for package in LOCK}
    assert PINS
    assert set(PINS) <= locked, "run .ci/lock"
    pinned = {name for name, _ in PINS}
    extras = ("track", "train", "dev")
    texts = [text for extra in extras for text in PROJECT["optional-dependencies"][extra]]
    for text in [*PROJECT["dependencies"], *texts]:
        assert re.split(r"[^\w-]", text)[0] in pinned, text


def test_constraints_serve_the_cpu_build_of_pytorch() -> None:
    assert [name for name, _ in PINS if CUDA_PACKAGES.match(name)] == []


@pytest.mark.parametrize("name", ["matplotlib", "pillow", "scipy", "supervision", "torch"])
def test_base_install_has_no_package_of_an_extra(name: str) -> None:
    """Follows the dependencies of all packages, whatever their markers."""
    dependencies: dict[str, set[str]] = {}
    for package in LOCK:
        names = {item["name"] for item in package.get("dependencies", ())}
        dependencies.setdefault(package["name"], set()).update(names)
    installed, waiting = set(), [PROJECT["name"]]
    while waiting:
        package_name = waiting.pop()
        if package_name not in installed:
            installed.add(package_name)
            waiting.extend(dependencies[package_name])
    assert name not in installed


def test_version_is_defined_once() -> None:
    assert "version" in PROJECT["dynamic"]
    assert version("realtime-ssd") == realtime_ssd.__version__


def test_entry_points_belong_to_known_groups() -> None:
    assert {group.removeprefix("realtime_ssd.") for group in PROJECT["entry-points"]} <= set(GROUPS)
