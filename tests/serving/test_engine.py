"""The engine: batches by tokens, nobody pays for another's fault, streams side by side."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from skillweave.serving.engine import WAITING_BATCHES, Engine
from skillweave.serving.errors import Overloaded, Unavailable
from skillweave.serving.metrics import Metrics

MOST = 10


class Counting:
    """Squares numbers, which are their own cost. Waits for `gate` before each batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def prepare(self, value: int) -> int:
        return value

    def cost(self, item: int) -> int:
        return item

    def run(self, items: Sequence[int], max_tokens: int) -> list[int]:
        self.gate.wait(10)
        self.batches.append(list(items))
        if 7 in items:
            raise ValueError("seven")
        return [item * item for item in items]

    def stream(self, item: int) -> Iterator[str]:
        for i in range(item):
            self.batches.append([-i])
            yield str(i)


@pytest.fixture
def engine() -> Iterator[Engine]:
    model: Any = torch.nn.Linear(1, 1)
    model.config = SimpleNamespace(precision="float32")
    found = Engine(model, MOST, Metrics())
    yield found
    found.stop(5)
    assert not found.thread.is_alive()


async def held_until_queued(engine: Engine, operation: Counting, calls: list[Any]) -> list[Any]:
    """Start calls while the engine is held, so that they wait together."""
    operation.gate.clear()
    first = asyncio.create_task(engine.run(operation, [1]))
    await asyncio.sleep(0.1)
    rest = [asyncio.create_task(engine.run(operation, items)) for items in calls]
    await asyncio.sleep(0.1)
    operation.gate.set()
    await first
    return await asyncio.gather(*rest, return_exceptions=True)


def test_what_waits_is_one_batch_up_to_its_tokens(engine: Engine) -> None:
    operation = Counting()
    found = asyncio.run(held_until_queued(engine, operation, [[2, 3], [4], [5, 20], [1]]))
    assert [one.results for one in found] == [[4, 9], [16], [25, 400], [1]]
    assert [one.tokens for one in found] == [5, 4, 25, 1]
    assert operation.batches == [[1], [2, 3, 4], [5], [20], [1]]


def test_operations_share_a_batch_but_not_a_call(engine: Engine) -> None:
    one, other = Counting(), Counting()

    async def both() -> None:
        one.gate.clear()
        held = asyncio.create_task(engine.run(one, [1]))
        await asyncio.sleep(0.1)
        waiting = [engine.run(x, [n]) for x, n in [(other, 2), (one, 3), (other, 4)]]
        tasks = [asyncio.create_task(x) for x in waiting]
        await asyncio.sleep(0.1)
        one.gate.set()
        await asyncio.gather(held, *tasks)

    asyncio.run(both())
    assert one.batches == [[1], [3]] and other.batches == [[2, 4]]


def test_a_fault_costs_one_item(engine: Engine) -> None:
    found = asyncio.run(held_until_queued(engine, Counting(), [[2], [7], [1]]))
    assert found[0].results == [4] and found[2].results == [1]
    assert isinstance(found[1], ValueError)


def test_too_much_is_refused_and_nothing_is_lost(engine: Engine) -> None:
    many = [[MOST]] * (WAITING_BATCHES + 3)
    found = asyncio.run(held_until_queued(engine, Counting(), many))
    refused = [one for one in found if isinstance(one, Overloaded)]
    assert len(refused) == 3 and int(refused[0].headers["retry-after"]) >= 1
    assert all(one.results == [MOST**2] for one in found if not isinstance(one, Overloaded))


def test_who_left_is_not_computed(engine: Engine) -> None:
    operation = Counting()

    async def leave() -> None:
        operation.gate.clear()
        first = asyncio.create_task(engine.run(operation, [1]))
        await asyncio.sleep(0.1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(engine.run(operation, [5]), 0.1)
        operation.gate.set()
        await first

    asyncio.run(leave())
    engine.stop(5)
    assert operation.batches == [[1]]


def test_streams_and_batches_take_turns(engine: Engine) -> None:
    operation = Counting()

    async def read(count: int) -> list[str]:
        return [piece async for piece in engine.stream(operation, count)]

    async def both() -> list[Any]:
        return await asyncio.gather(read(300), read(200), engine.run(operation, [3]))

    long, short, squared = asyncio.run(both())
    assert long == [str(i) for i in range(300)] and len(short) == 200
    assert squared.results == [9]
    assert operation.batches.index([3]) < 400  # before the streams ended


def test_a_stream_that_nobody_reads_ends(engine: Engine) -> None:
    operation = Counting()

    async def leave() -> None:
        pieces = engine.stream(operation, 10**9)
        assert await anext(pieces) == "0"
        await pieces.aclose()

    asyncio.run(leave())
    end = time.monotonic() + 5
    while engine.streams and time.monotonic() < end:
        time.sleep(0.01)
    assert not engine.streams


def test_a_stopped_engine_answers_what_it_took(engine: Engine) -> None:
    operation = Counting()

    async def stop() -> Any:
        operation.gate.clear()
        tasks = [asyncio.create_task(engine.run(operation, [n])) for n in (1, 2, 3)]
        await asyncio.sleep(0.1)
        engine.stop(0)
        with pytest.raises(Unavailable):
            await engine.run(operation, [4])
        operation.gate.set()
        return await asyncio.gather(*tasks)

    assert [one.results for one in asyncio.run(stop())] == [[1], [4], [9]]
