"""Every version that stands in a digest is tied to a small output of the code that it guards.

Where such code changes what it makes, nothing that stores keep of it may be taken for it any more.
"""

import ast
from importlib import import_module
from pathlib import Path

import pytest
from versioned_outputs import OUTPUTS, Given, settle, start_small_run

from distill_tasks.core.digests import digest
from distill_tasks.training.checkpoint import Checkpoint

ROOT = Path(__file__).parents[2]

GUARDED = {
    "distill_tasks.llm.labelling.READING_VERSION": (2, "72734493abf4e3af"),
    "distill_tasks.results.evaluator.CODE_VERSION": (4, "1d48073c8bfd4dc5"),
    "distill_tasks.results.exported.CODE_VERSION": (1, "35aed8dd1f0de832"),
    "distill_tasks.results.trained.CALIBRATION_VERSION": (1, "ff59aa37231c01bc"),
    "distill_tasks.results.trained.CODE_VERSION": (7, "fca88328fd1cef7d"),
    "distill_tasks.scoring.predictions.CODE_VERSION": (1, "f249dcf88969b51a"),
    "distill_tasks.stages.halve.CODE_VERSION": (4, "eb1f86cf3cb15f6f"),
    "distill_tasks.stages.measure.CODE_VERSION": (3, "12a80bdb1d63e025"),
    "distill_tasks.stages.prepare.REPORT_VERSION": (4, "bedd7089e7a62187"),
    "distill_tasks.stages.prove.CODE_VERSION": (4, "7f359121bfa48ae9"),
    "distill_tasks.stages.search.CODE_VERSION": (1, "eda88024c8cdf5d0"),
    "distill_tasks.stages.tune.CODE_VERSION": (3, "72abc6a212ea1c2f"),
    "distill_tasks.students.token_vectors.VECTORS_VERSION": (1, "c6c844e20465cbbe"),
    "distill_tasks.teachers.causal_lm.CODE_VERSION": (1, "f17cacb0b0a2dc47"),
    "distill_tasks.teachers.finetune.CODE_VERSION": (5, "9a9898277ae6f027"),
    "registry.gate.CODE_VERSION": (3, "ae03828bc102777a"),
}
"""Each version, and the digest of what its code made when that was written down."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return start_small_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def given(run, tiny_base, tmp_path):
    return Given(run, Checkpoint(tiny_base, None, 16), tmp_path)


@pytest.mark.parametrize("name", GUARDED)
def test_a_version_is_raised_with_what_it_guards(name, given):
    module, constant = name.rsplit(".", 1)
    version, (written, known) = getattr(import_module(module), constant), GUARDED[name]
    found = digest(settle(OUTPUTS[name](given)))
    assert found == known or version != written, (
        f"What {name} guards has changed ({OUTPUTS[name].__name__} shows it). If that is meant, "
        f'raise it to {written + 1} and write ({written + 1}, "{found}") into GUARDED, so that '
        "nothing kept before is taken for what the code makes now. If not, mend the code."
    )
    assert (version, found) == (written, known), (
        f'{name} was raised: write ({version}, "{found}") into GUARDED.'
    )


def test_every_version_is_guarded():
    found = set()
    for package in ("distill_tasks", "registry", "flows"):
        for path in ROOT.glob(f"{package}/**/*.py"):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                    (target,) = node.targets
                    if ast.unparse(target).endswith("_VERSION"):
                        found.add(f"{module}.{ast.unparse(target)}")
    assert found == set(GUARDED) == set(OUTPUTS)
