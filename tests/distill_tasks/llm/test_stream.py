import asyncio
import threading
from contextlib import asynccontextmanager

import pytest

from distill_tasks.llm.stream import Stream


class Work:
    """Sleeps a little for each piece, and notes how many ran at once; one piece may fail."""

    def __init__(self, fails=None):
        self.fails, self.running, self.most, self.done = fails, 0, 0, []
        self.closed = False

    @asynccontextmanager
    async def open(self):
        yield self.do
        self.closed = True

    async def do(self, number):
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.002)
        self.running -= 1
        if number == self.fails:
            raise LookupError(number)
        self.done.append(number)
        return number * number


def test_every_piece_comes_once_and_few_run_at_once():
    work = Work()
    assert dict(Stream(work.open, 50, at_once=7)) == {n: n * n for n in range(50)}
    assert work.most == 7
    assert work.closed


def test_nothing_to_do_ends_at_once():
    assert list(Stream(Work().open, 0, at_once=7)) == []


def test_a_failure_lets_those_on_their_way_finish_and_begins_no_other():
    work, seen = Work(fails=10), []
    with pytest.raises(LookupError):
        seen.extend(number for number, _ in Stream(work.open, 1000, at_once=5))
    assert work.closed
    assert 10 <= len(work.done) <= 20
    assert 10 not in work.done


def test_a_reader_that_stops_leaves_no_thread_behind():
    work = Work()
    stream = iter(Stream(work.open, 1000, at_once=5))
    next(stream)
    stream.close()
    assert work.closed
    assert len(work.done) < 30
    assert "questions" not in [thread.name for thread in threading.enumerate()]
