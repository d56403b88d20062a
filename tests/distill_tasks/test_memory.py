import gc
import sys
import types
import weakref

import pytest

from distill_tasks.memory import _leave_out, collect_garbage, release_memory


class Ring:
    """Something that refers to itself."""

    def __init__(self):
        self.itself = self


@pytest.fixture(autouse=True)
def not_yet_left_out():
    _leave_out.cache_clear()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("collect", [collect_garbage, release_memory])
def test_what_refers_to_itself_is_freed(collect):
    collect()
    ring = Ring()
    gone = weakref.ref(ring)
    del ring
    collect()
    assert gone() is None


def test_what_is_loaded_is_looked_at_once_more_with_each_new_module(monkeypatch):
    collect_garbage()
    frozen = gc.get_freeze_count()
    assert frozen > 10_000
    kept = [Ring() for _ in range(1_000)]
    collect_garbage()
    assert gc.get_freeze_count() <= frozen
    monkeypatch.setitem(sys.modules, "loaded_meanwhile", types.ModuleType("loaded_meanwhile"))
    collect_garbage()
    assert gc.get_freeze_count() > frozen
    assert len(kept) == 1_000
