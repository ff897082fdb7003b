"""TensorRT names that the project uses, against the recorded contents of NVIDIA's bindings.

`python -m benchmarks.gpu.trt_bindings WHEEL...` writes the record.
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


def test_the_record_covers_three_generations() -> None:
    assert [record["tensorrt"].split(".")[0] for record in RECORDS] == ["8", "10", "10", "11"]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: str(record["tensorrt"]))
def test_all_names_in_the_sources_exist_in_the_bindings(record: dict[str, Any]) -> None:
    assert record["problems"] == []
    names = {use.name for use in uses()}
    assert names == set(record["names"]), (
        "the sources use other names now; run benchmarks.gpu.trt_bindings again"
    )
    for name in names:
        alternative = ALTERNATIVES.get(name)
        exists = record["names"][name]
        assert exists or alternative == "" or record["names"][alternative], name


def test_enumerators_that_are_looked_up_by_string_exist_in_some_version() -> None:
    for text in enumerators():
        assert any(record["enumerators"][text] for record in RECORDS), text


def test_uses_are_extracted_from_the_sources() -> None:
    names = {use.name: use for use in uses()}
    assert names["IBuilderConfig.set_timing_cache"].keywords == ("ignore_mismatch",)
    assert "IProfiler.report_layer_time" in names
    assert "IExecutionContext.execute_async_v3" in names
    assert not any(name.startswith("IExecutionContext.execute_async_v2") for name in names)


@pytest.mark.parametrize(
    ("arguments", "keywords", "valid"),
    [
        (1, ("loose",), True),
        (2, (), True),
        (1, (), False),
        (3, (), False),
        (1, ("unknown",), False),
    ],
)
def test_calls_are_checked_against_docstring_signatures(
    arguments: int, keywords: tuple[str, ...], valid: bool
) -> None:
    text = "set(self: trt.Config, cache: trt.Cache, loose: bool) -> bool\n\n    Set the cache."
    problem = signature_problem(SimpleNamespace(__doc__=text), Use("x", arguments, keywords))
    assert (problem == "") is valid


@pytest.mark.skipif(find_spec("tensorrt") is None, reason="TensorRT is not installed")
def test_the_installed_tensorrt_has_all_names() -> None:
    import tensorrt

    from benchmarks.gpu.trt_bindings import check

    assert check(tensorrt)["problems"] == []


@pytest.mark.usefixtures("needs_rtx")
def test_tensorrt_rtx_has_all_names() -> None:
    from realtime_ssd_engines.tensorrt.library import library

    from benchmarks.gpu.trt_bindings import check

    record = check(library("rtx"))
    absent = {name for name, exists in record["names"].items() if not exists}
    assert absent <= ONLY_TENSORRT
    assert [problem for problem in record["problems"] if "without a GPU" not in problem] == []


ONLY_TENSORRT = {
    "BuilderFlag.FP16",
    "BuilderFlag.PREFER_PRECISION_CONSTRAINTS",
    "ICudaEngine.create_execution_context_without_device_memory",
    "ICudaEngine.device_memory_size",
    "ILayer.precision",
    "ILayer.set_output_type",
}
"""Names that the sources use with TensorRT only."""
