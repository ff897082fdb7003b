"""Description of the public API: exported names, signatures and fields.

    python -m tests.core.api_surface

writes it to `api_surface.json`, which a test compares with the code. Run it after an intended
change of the API, and review the difference.
"""

from __future__ import annotations

import inspect
import json
import pkgutil
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import realtime_ssd
import realtime_ssd.core

__all__ = ["FILE", "api_surface"]

FILE = Path(__file__).with_name("api_surface.json")
DETAILED = ("Detection", "Detections", "Detector", "Frame", "ModelSpec", "open_source")
"""Names of `realtime_ssd` that are locked with their signatures, methods and fields."""


def api_surface() -> dict[str, Any]:
    """Return the public API as plain values."""
    modules = ["realtime_ssd"]
    modules += [
        f"realtime_ssd.core.{m.name}" for m in pkgutil.iter_modules(realtime_ssd.core.__path__)
    ]
    exports = {name: sorted(import_module(name).__all__) for name in modules}
    details = {name: _describe(getattr(realtime_ssd, name)) for name in DETAILED}
    return {"exports": exports, "details": details}


def _describe(value: Any) -> Any:
    if not isinstance(value, type):
        return _signature(value)
    members = {
        name: _member(inspect.getattr_static(value, name))
        for name in sorted(dir(value))
        if not name.startswith("_") and not (is_dataclass(value) and name in _field_names(value))
    }
    return {
        "init": _signature(value.__init__),  # type: ignore[misc]
        "call": _signature(value.__call__) if "__call__" in vars(value) else None,
        "members": members,
    }


def _field_names(value: type[Any]) -> set[str]:
    return {field.name for field in fields(value)}


def _member(member: Any) -> Any:
    if isinstance(member, classmethod | staticmethod):
        return [type(member).__name__, *_signature(member.__func__)]
    return _signature(member) if callable(member) else type(member).__name__


def _signature(function: Any) -> list[str]:
    """Return each parameter as in the source, and the return type."""
    signature = inspect.signature(function)
    lines: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in lines:
            lines.append("*")
        lines.append(_parameter(parameter))
    return [*lines, f"-> {signature.return_annotation}"]


def _parameter(parameter: inspect.Parameter) -> str:
    variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    text = str(parameter.replace(annotation=parameter.empty)) if variadic else parameter.name
    if parameter.annotation is not parameter.empty:
        text += f": {parameter.annotation}"
    return text if parameter.default is parameter.empty else f"{text} = {parameter.default!r}"


if __name__ == "__main__":
    FILE.write_text(json.dumps(api_surface(), indent=1, sort_keys=True) + "\n")
