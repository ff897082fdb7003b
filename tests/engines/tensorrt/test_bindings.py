"""Every name of TensorRT that the project uses, against what the real bindings were found to have.

`python -m benchmarks.gpu.trt_bindings WHEEL...` writes the record these tests read.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.gpu.trt_bindings import (
    ALTERNATIVES,
    RESULTS,
    Use,
    enumerators,
    signature_problem,
    uses,
)

RECORDS: list[dict[str, Any]] = json.loads(RESULTS.read_text())["bindings"]


def test_three_generations_were_checked() -> None:
    assert [record["tensorrt"].split(".")[0] for record in RECORDS] == ["8", "10", "10", "11"]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: str(record["tensorrt"]))
def test_all_that_the_sources_use_now_is_there(record: dict[str, Any]) -> None:
    assert record["problems"] == []
    names = {use.name for use in uses()}
    assert names == set(record["names"]), "run the check again: the sources use other names now"
    for name in names:
        other = ALTERNATIVES.get(name)
        assert record["names"][name] or other == "" or record["names"][other], name


def test_enumerators_named_by_a_string_exist_somewhere() -> None:
    for text in enumerators():
        assert any(record["enumerators"][text] for record in RECORDS), text


def test_the_sources_are_read() -> None:
    names = {use.name: use for use in uses()}
    assert names["IBuilderConfig.set_timing_cache"].keywords == ("ignore_mismatch",)
    assert "IProfiler.report_layer_time" in names
    assert "IExecutionContext.execute_async_v3" in names
    assert not any(name.startswith("IExecutionContext.execute_async_v2") for name in names)


@pytest.mark.parametrize(
    ("arguments", "keywords", "fits"),
    [(1, ("loose",), True), (2, (), True), (1, (), False), (3, (), False), (1, ("odd",), False)],
)
def test_signatures(arguments: int, keywords: tuple[str, ...], fits: bool) -> None:
    text = "set(self: trt.Config, cache: trt.Cache, loose: bool) -> bool\n\n    Sets it."
    problem = signature_problem(SimpleNamespace(__doc__=text), Use("x", arguments, keywords))
    assert (problem == "") is fits


@pytest.mark.skipif(find_spec("tensorrt") is None, reason="TensorRT is not installed")
def test_the_installed_tensorrt() -> None:
    import tensorrt

    from benchmarks.gpu.trt_bindings import check

    assert check(tensorrt)["problems"] == []
