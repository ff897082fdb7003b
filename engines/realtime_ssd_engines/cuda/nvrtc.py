"""NVRTC, the kernel compiler that is available as a Python package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from realtime_ssd.core.errors import ModelError
from realtime_ssd_engines.cuda.driver import import_bindings

__all__ = ["nvrtc_architectures", "nvrtc_compile", "nvrtc_version"]

_BLANK = " \r\n\t\0"  # the log ends with a null character


def nvrtc_version() -> tuple[int, int] | None:
    """Return the version of NVRTC, or None if it is not available."""
    api = import_bindings("nvrtc")
    if api is None:
        return None
    try:
        error, major, minor = api.nvrtcVersion()
    except (RuntimeError, OSError):
        return None
    return None if int(error) else (major, minor)


def nvrtc_architectures() -> tuple[int, ...]:
    """Return the compute capabilities that NVRTC compiles for, such as 90, in ascending order."""
    error, count = import_bindings("nvrtc").nvrtcGetNumSupportedArchs()
    if int(error):
        return ()
    _, architectures = import_bindings("nvrtc").nvrtcGetSupportedArchs()
    return tuple(sorted(int(number) for number in architectures[:count]))


def nvrtc_compile(
    name: str,
    source: str,
    headers: Mapping[str, str],
    options: Sequence[str],
    *,
    ptx: bool = False,
) -> bytes:
    """Compile one source with NVRTC, to a cubin or to PTX.

    Args:
        name: File name for compiler messages.
        source: CUDA C++.
        headers: Header texts by include name.
        options: Such as "-arch=sm_90".
        ptx: Whether to return PTX, which the driver compiles when it is loaded.

    Raises:
        ModelError: If the compilation fails; the message contains the compiler's log.
    """
    api = import_bindings("nvrtc")
    texts, names = ([value.encode() for value in part] for part in (headers.values(), headers))
    _, program = api.nvrtcCreateProgram(source.encode(), name.encode(), len(texts), texts, names)
    encoded = [option.encode() for option in options]
    (error,) = api.nvrtcCompileProgram(program, len(encoded), encoded)
    if int(error):
        _, size = api.nvrtcGetProgramLogSize(program)
        log = b" " * size
        api.nvrtcGetProgramLog(program, log)
        raise ModelError(
            f"NVRTC cannot compile {name}: {log.decode(errors='replace').strip(_BLANK)}"
        )
    kind = "PTX" if ptx else "CUBIN"
    _, size = getattr(api, f"nvrtcGet{kind}Size")(program)
    code: bytes = b" " * size
    getattr(api, f"nvrtcGet{kind}")(program, code)
    api.nvrtcDestroyProgram(program)
    return code
