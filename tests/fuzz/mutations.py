"""Seeded mutations of JSON values and bytes."""

from __future__ import annotations

import copy
import random
from typing import Any

__all__ = ["mutate_bytes", "mutate_json"]

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -0.0, 1, -1, 3.5, 1e-320, 1e308, 2**31, -(2**63), 10**30, 10**400),
    *(float("nan"), float("inf"), -float("inf")),
    *("", "1", "x" * 5000, "a\nb", "\x1b[31m", "\u202e", "\ud800", "`a`", "AAAA", "é" * 300),
    *([], [[]], [1, "2", None], {}, {"a": {}}, [0] * 5000),
)


def mutate_json(value: Any, chance: random.Random) -> Any:
    """Return a copy of a JSON value in which one to three places are replaced, added or removed."""
    result = copy.deepcopy(value)
    for _ in range(chance.randint(1, 3)):
        parent, key = chance.choice(_places(result))
        action = chance.random()
        if action < 0.75:
            parent[key] = copy.deepcopy(chance.choice(HOSTILE))
        elif action < 0.85:
            del parent[key]
        elif isinstance(parent, dict):
            parent[chance.choice(("new", "", "__class__", key + "`x`\n"))] = parent[key]
        else:
            parent[key:key] = [parent[key]] * chance.choice((1, 100, 5000))
        if not _places(result):
            break
    return result


def _places(value: Any) -> list[tuple[Any, Any]]:
    """List the container and key of every value in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    places = [(value, key) for key, _ in items]
    for container, key in list(places)[:500]:
        if isinstance(container[key], dict | list):
            places += _places(container[key])
    return places


def mutate_bytes(data: bytes, chance: random.Random) -> bytes:
    """Return bytes of which a few are changed, removed, repeated or cut off."""
    result = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(result) or 1)
        length = chance.choice((1, 1, 2, 8, 100))
        action = chance.randrange(4)
        if action == 0:
            result[start : start + length] = chance.randbytes(length)
        elif action == 1:
            del result[start : start + length]
        elif action == 2:
            result[start:start] = result[start : start + length]
        elif chance.random() < 0.2:
            del result[start:]
        elif result:
            result[start] ^= 1 << chance.randrange(8)
    return bytes(result)
