"""From concurrent questions to a stream of answers that ordinary code can read."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

T = TypeVar("T")

_END = object()


class Stream(Generic[T]):
    """Works on numbered pieces at the same time, in a thread, and yields results as they come.

    When the reader stops, or a piece fails, no further piece is begun; those on their way are
    finished first.
    """

    def __init__(
        self,
        work: Callable[[], AbstractAsyncContextManager[Callable[[int], Awaitable[T]]]],
        pieces: int,
        at_once: int,
    ) -> None:
        """``work`` is entered once in the thread's event loop, and gives what does one piece."""
        self._results: queue.SimpleQueue[tuple[int, T] | BaseException | object]
        self._results = queue.SimpleQueue()
        self._numbers = iter(range(pieces))
        self._stopped = threading.Event()
        self._at_once = min(at_once, pieces)
        self._start = work

    def __iter__(self) -> Iterator[tuple[int, T]]:
        thread = threading.Thread(target=self._run, name="questions", daemon=True)
        thread.start()
        try:
            while (found := self._results.get()) is not _END:
                if isinstance(found, BaseException):
                    raise found
                yield found  # type: ignore[misc]  # a number and its result
        finally:
            self._stopped.set()
            thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._work())
        except BaseException as error:  # noqa: BLE001  # the reader raises it
            self._results.put(error)
        self._results.put(_END)

    async def _work(self) -> None:
        failures: list[Exception] = []
        async with self._start() as do:
            takers = (self._take(do, failures) for _ in range(self._at_once))
            await asyncio.gather(*takers)
        if failures:
            raise failures[0]

    async def _take(self, do: Callable[[int], Awaitable[T]], failures: list[Exception]) -> None:
        """Do one piece after the other until none is left or one fails."""
        for number in self._numbers:
            if self._stopped.is_set():
                return
            try:
                self._results.put((number, await do(number)))
            except Exception as error:  # noqa: BLE001  # raised once the others are done
                failures.append(error)
                self._stopped.set()
