import gc
import sys
import types
import weakref

import pytest

from distill_tasks.core import memory
from distill_tasks.core.memory import _leave_out, collect_garbage, release_memory


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


@pytest.mark.parametrize("name", memory.CONTROL_GROUPS)
def test_a_container_has_the_memory_that_it_may_take(name, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CONTROL_GROUP_ROOT", tmp_path)
    whole = memory.find_memory_gb()
    assert whole > 0.5
    limit = tmp_path / name
    limit.parent.mkdir(exist_ok=True)
    for written, expected in (("max", whole), (str(2**63 - 4096), whole), ("250000000\n", 0.25)):
        limit.write_text(written)
        assert memory.find_memory_gb() == expected
