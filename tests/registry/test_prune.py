import os
import time
from pathlib import Path

import pytest
from samples import LAYERS, STATIC, WORDS_STUDENT

from distill_tasks.tracking.tags import DISTILLATION
from registry.aliases import read_versions
from registry.prune import find_leftovers

NAMES = (LAYERS, STATIC, WORDS_STUDENT)


@pytest.fixture
def config(house, tmp_path):
    """A configuration whose store is empty, in an MLflow that holds a whole distillation."""
    return house.config.model_copy(update={"work_dir": str(tmp_path)})


def name_model(config, model):
    registry = config.registry.model_copy(update={"model": model})
    return config.model_copy(update={"registry": registry})


def find(house, config, model, days=-1.0, labels=False):
    """Return what is left over, everything being old by default."""
    return find_leftovers(name_model(config, model), house.client, days, labels)


def names_of(leftovers, kind):
    return [one.name for one in leftovers if one.kind == kind]


def age(folder: Path, days: float) -> None:
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(b"x" * 1_000)
    old = time.time() - days * 24 * 3600
    for path in (folder / "file", folder):
        os.utime(path, (old, old))


def test_only_versions_that_nobody_may_need_are_left_over(house, config, model):
    for name in NAMES:
        house.crown(model, name)
    for name in NAMES[:2]:
        house.register(f"{model}-2"[-60:], name)
    assert names_of(find(house, config, model), "version") == [f"{model} 1"]
    assert names_of(find(house, config, model, days=1), "version") == []
    waiting = f"{model}-2"[-60:]
    assert names_of(find(house, config, waiting), "version") == [f"{waiting} 1"]
    house.client.set_model_version_tag(waiting, "1", "review", "approved")
    assert names_of(find(house, config, waiting), "version") == []
    house.client.set_model_version_tag(waiting, "1", "review.done", "approved")
    assert names_of(find(house, config, waiting), "version") == [f"{waiting} 1"]


def test_what_is_removed_is_gone_and_what_is_needed_stays(house, config, model):
    for name in NAMES:
        house.crown(model, name)
    for leftover in find(house, config, model):
        if leftover.kind == "version":  # the distillations are those of other tests
            leftover.remove()
    assert sorted(read_versions(house.client, model)) == [2, 3]
    assert house.aliases(model) == {"champion": 3, "previous": 2}
    assert names_of(find(house, config, model), "version") == []


def test_a_distillation_that_no_version_came_from_goes_with_all_its_runs(house, config, model):
    house.crown(model, LAYERS)
    client, experiment = house.client, house.distillation.experiment_id
    for number, name in enumerate(["other", "other"]):
        tags = {DISTILLATION: f"digest{number}", "potstill.role": "summary"}
        client.create_run(experiment, run_name=name, tags=tags, start_time=1_000 + number)
    found = {one.name: one for one in find(house, config, model) if one.kind == "distillation"}
    assert "digest1, 1 run" not in found  # the last of its name
    found["digest0, 1 run"].remove()
    assert "digest0, 1 run" not in names_of(find(house, config, model), "distillation")
    assert client.get_run(house.distillation.run_id).info.lifecycle_stage == "active"


def test_old_folders_go_but_not_the_students_of_versions_nor_labels_unasked(house, config, model):
    house.crown(model, LAYERS)
    kept = house.client.get_model_version(model, "1").tags["potstill.student"]
    root = Path(config.work_dir)
    for name in (f"students/{kept}", "students/old", "served/old", "labels/teacher"):
        age(root / name, days=90)
    age(root / "students/young", days=3)
    found = [one for one in find(house, config, model, days=30) if one.kind != "distillation"]
    assert names_of(found, "student") == ["students/old", "served/old"]
    assert [one.megabytes for one in found] == [0.001, 0.001]
    assert names_of(found, "labels") == []
    assert names_of(find(house, config, model, days=30, labels=True), "labels") == [
        "labels/teacher"
    ]
    for one in found:
        one.remove()
    assert sorted(path.name for path in (root / "students").iterdir()) == sorted([kept, "young"])
