"""Counts instructions in disassembled kernels."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

__all__ = ["PathCount", "disassemble", "longest_path", "nvdisasm_path"]

_LABEL = re.compile(r"^\s*(\.L\w+):")
_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:(@\S+)\s+)?(\S+)\s*(.*?)\s*;")
_TARGET = re.compile(r"`\((\.L\w+)\)")
_PREDICATE = re.compile(r"^!?U?P\d")
_LOAD = re.compile(r"^LDG?(\.|$)")
_FP64 = re.compile(r"^D(ADD|MUL|FMA|SETP|MNMX)|\.F64")


@dataclass(frozen=True)
class PathCount:
    """Instructions that a thread executes.

    Attributes:
        instructions: All instructions.
        loads: Loads from global memory.
        fp64: Instructions in double precision, which are slow on all but data-center GPUs.
    """

    instructions: int = 0
    loads: int = 0
    fp64: int = 0


@dataclass
class _Block:
    """Instructions without a branch between them, and the blocks that follow."""

    opcodes: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    falls_through: bool = True


def nvdisasm_path() -> str | None:
    """Return the path of NVIDIA's disassembler, from PATH, the toolkit or a Python package."""
    folders: list[str | None] = [None, "/usr/local/cuda/bin"]
    package = find_spec("nvidia")
    for location in package.submodule_search_locations or () if package else ():
        folders += map(str, Path(location).glob("*/bin"))
    return next(filter(None, (shutil.which("nvdisasm", path=path) for path in folders)), None)


def disassemble(program: str, cubin: bytes) -> str:
    """Return the instructions of a cubin as text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        command = [program, "-c", str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def longest_path(text: str) -> PathCount:
    """Count the instructions on the longest way through a kernel, with one round of each loop.

    Args:
        text: Output of nvdisasm for one kernel.
    """
    names, blocks = _blocks(text)
    index = {name: number for number, name in enumerate(names)}
    best: dict[int, PathCount] = {len(blocks): PathCount()}
    for number in reversed(range(len(blocks))):
        block = blocks[number]
        following = [index[name] for name in block.targets if index.get(name, 0) > number]
        following += [number + 1] if block.falls_through else []
        rest = max(
            (best[n] for n in following), key=lambda c: c.instructions, default=best[len(blocks)]
        )
        best[number] = PathCount(
            rest.instructions + len(block.opcodes),
            rest.loads + sum(bool(_LOAD.match(opcode)) for opcode in block.opcodes),
            rest.fp64 + sum(bool(_FP64.search(opcode)) for opcode in block.opcodes),
        )
    return best[0]


def _blocks(text: str) -> tuple[list[str], list[_Block]]:
    """Split the instructions at labels and branches; blocks without a label have an empty name."""
    names, blocks = [""], [_Block()]
    for line in text.splitlines():
        if label := _LABEL.match(line):
            names.append(label[1])
            blocks.append(_Block())
            continue
        instruction = _INSTRUCTION.search(line)
        if instruction is None or instruction[2].startswith("NOP"):
            continue
        predicate, opcode, operands = instruction.groups()
        blocks[-1].opcodes.append(opcode)
        conditional = bool(predicate or _PREDICATE.match(operands))
        if opcode.startswith("BRA"):
            blocks[-1].targets += _TARGET.findall(operands)
        if opcode.startswith(("BRA", "EXIT")):
            blocks[-1].falls_through = conditional
            names.append("")
            blocks.append(_Block())
    return names, blocks
