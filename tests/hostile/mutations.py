"""Random damage to the bytes of a file: to any bytes, and to the values of JSON and YAML."""

import copy
import json
import random
from collections.abc import Callable
from typing import Any

import yaml

VALUES: list[Any] = [
    *(None, True, -1, 0, 1, 3, 2**31, 2**63, 2**70, -(2**70), 1e-300, 1e300, -0.5),
    *(float("inf"), float("nan"), "", "x", "../x", "\x1b[2J", "\ud800", "{0..1000000000}", "[/x]"),
    *([], {}, [[]], [None], {"": None}, "x" * 10_000, [1] * 1000),
]
"""What a setting is replaced by."""
SNIPPETS = [
    *(b"\xff", b"\xd6\xd0\xce\xc4", b"\x00", b"\xed\xa0\x80", b"\xe2\x80\xa8", b"\xef\xbb\xbf"),
    *(b"\r", b"\n", b'"', b"'", b"{", b"[", b"\t", b",", b"-1", b"1e999", b"NaN", b"[" * 100_000),
    *(b"9" * 5000, b"*a", b"&a [*a]", b"!!python/object:os.system ", b"A" * 100_000),
]
"""What is put into a file."""


def mutate(data: bytes, name: str, rng: random.Random) -> bytes:
    """Damaged contents of a file. `name`: its name, which says how it is structured."""
    if name.endswith(".json") and b"\n{" not in data and rng.random() < 0.7:
        return _values(data, json.loads, _as_json, rng)
    if name.endswith((".yaml", ".yml")) and rng.random() < 0.7:
        return _values(data, yaml.safe_load, _as_yaml, rng)
    if name.endswith((".jsonl", ".json")) and b"\n{" in data and rng.random() < 0.5:
        lines = data.split(b"\n")
        at = rng.randrange(len(lines))
        lines[at] = _values(lines[at] or b"{}", json.loads, _as_json, rng)
        return b"\n".join(lines)
    if name.endswith(".safetensors") and rng.random() < 0.6:
        size = int.from_bytes(data[:8], "little")
        header = _values(data[8 : 8 + size], json.loads, _as_json, rng)
        return len(header).to_bytes(8, "little") + header + data[8 + size :]
    for _ in range(rng.choice((1, 1, 2, 8))):
        data = rng.choice(BYTES)(data, rng)
    return data


def _flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 4, 32))):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _remove(data: bytes, rng: random.Random) -> bytes:
    at, size = rng.randrange(len(data) + 1), rng.choice((1, 4, 100))
    return data[:at] + data[at + size :]


def _insert(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice([*SNIPPETS, rng.randbytes(16)]) + data[at:]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    at, size = rng.randrange(len(data) + 1), rng.choice((8, 64, 1000))
    return data[:at] + data[at : at + size] * rng.choice((2, 50)) + data[at + size :]


def _number(data: bytes, rng: random.Random) -> bytes:
    """Overwrite 4 bytes by a number that a format may take for a length or an offset."""
    at = rng.randrange(max(len(data) - 4, 1))
    value = rng.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**24))
    return data[:at] + value.to_bytes(4, rng.choice(("little", "big"))) + data[at + 4 :]


def _replace(data: bytes, rng: random.Random) -> bytes:
    return rng.choice((b"", b"\x00" * 1000, rng.randbytes(1000), b"{}", b"[]", b"null", b"\n"))


BYTES = (_flip, _flip, _cut, _remove, _insert, _insert, _repeat, _number, _replace)


def _values(
    data: bytes,
    parse: Callable[[bytes], Any],
    write: Callable[[Any], bytes],
    rng: random.Random,
) -> bytes:
    content = [parse(data)]
    for _ in range(rng.choice((1, 1, 2, 5))):
        places = list(_places(content))
        holder, key = rng.choice(places)
        if rng.random() < 0.2 and holder is not content:
            del holder[key]
        elif rng.random() < 0.2 and isinstance(holder, dict):
            holder[rng.choice(("x", "../x", "", "keys", "a.b", "\x00"))] = holder.pop(key)
        elif rng.random() < 0.2:
            holder[key] = [holder[key]]
        else:
            holder[key] = copy.deepcopy(rng.choice(VALUES))
    return write(content[0])


def _places(value: Any) -> Any:
    """Every (container, key) of nested values."""
    items = enumerate(value) if isinstance(value, list) else value.items()
    for key, part in list(items):
        yield value, key
        if isinstance(part, list | dict):
            yield from _places(part)


def _as_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True).encode()


def _as_yaml(value: Any) -> bytes:
    return yaml.safe_dump(value, sort_keys=False).encode("utf-8", "surrogatepass")
