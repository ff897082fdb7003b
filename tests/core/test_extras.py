"""Missing optional packages are reported with the extra that installs them."""

from __future__ import annotations

import re
import sys
from importlib.metadata import metadata
from pathlib import Path
from types import ModuleType

import pytest

from realtime_ssd.core.errors import RealtimeSSDError, UsageError
from realtime_ssd.core.extras import missing_packages, require


def test_installed_packages_are_not_missing() -> None:
    assert missing_packages("numpy", "xml.dom") == []
    require("train", "numpy", "xml.dom", purpose="training")


def test_missing_packages_keep_their_order_and_are_unique(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    names = ("not_installed", "numpy", "xml", "not_installed", "not_installed.part")
    assert missing_packages(*names) == ["not_installed", "numpy", "not_installed.part"]


def test_a_module_without_a_specification_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stub", ModuleType("stub"))
    assert missing_packages("stub") == []


def test_the_error_has_the_command_that_installs_the_extra() -> None:
    with pytest.raises(RealtimeSSDError) as caught:
        require("train", "numpy", "not_installed", "nor_this", purpose="training")
    assert str(caught.value) == (
        "training requires 'not_installed', 'nor_this'; run pip install 'realtime-ssd[train]'"
    )
    assert not isinstance(caught.value, UsageError)
    with pytest.raises(RealtimeSSDError, match=r"'realtime-ssd\[train\]' or use an ONNX file$"):
        require("train", "not_installed", purpose="x", alternative="use an ONNX file")
    assert caught.value.exit_status == 1


def test_the_packages_are_not_imported() -> None:
    sys.modules.pop("this", None)
    require("train", "this", purpose="training")
    assert "this" not in sys.modules


def test_every_extra_that_is_named_can_be_installed() -> None:
    root = Path(__file__).parents[2]
    sources = [*root.glob("realtime_ssd/**/*.py"), *root.glob("engines/**/*.py")]
    sources += [*root.glob("training/**/*.py"), root / "README.md", *root.glob("docs/*.md")]
    text = "\n".join(source.read_text() for source in sources)
    named = set(re.findall(r"realtime-ssd\[([a-z0-9-]+)\]|require\(\s*\"([a-z0-9-]+)\"", text))
    installable = set(metadata("realtime-ssd").get_all("Provides-Extra") or ())
    names = {first or second for first, second in named}
    assert {"train", "track", "gpu"} <= names
    assert names - installable == set()
