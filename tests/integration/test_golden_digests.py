"""The names under which a store keeps things, written down on 2026-11-26.

Were one to change without a reason, everything that users keep would be made again.
"""

import pytest
from builders import open_run, train_finalists
from samples import write_words

from distill_tasks.config import parse_config
from distill_tasks.data.rows import read_corpus
from distill_tasks.results.grid import Trial
from distill_tasks.results.references import TeacherReference
from distill_tasks.results.run import OpenRun
from distill_tasks.results.trained import digest_training
from distill_tasks.stages.prepare import keep_corpus
from distill_tasks.students import BagOfWordsStudent, LayersStudent, StaticStudent


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return parse_config(write_words(tmp_path_factory.mktemp("golden")), "test")


@pytest.fixture(scope="module")
def corpus(config):
    return read_corpus(config.data, config.seed)


@pytest.mark.parametrize(
    ("student", "distilled", "name"),
    [
        (LayersStudent(layers=2), True, "a8c0672aaf501468"),
        (LayersStudent(layers=2), False, "64efcfda9fdc7d97"),
        (LayersStudent(layers=1, width=16), True, "c8186fa310e708b9"),
        (StaticStudent(dimensions=64), True, "3079f4a9972efbc9"),
        (BagOfWordsStudent(), True, "6d56dbc0f2618ae0"),
        (BagOfWordsStudent(hidden_units=8), False, "29774d2f20c4c285"),
    ],
)
def test_the_recipe_of_a_student_keeps_its_name(config, corpus, student, distilled, name):
    teacher = TeacherReference("golden", corpus.classes, None, 0.0, [], reused=True)
    run = OpenRun(config, corpus, teacher, None, config.loss.objective(2.0, 0.9))
    assert digest_training(run, Trial(student, 7, distilled)) == name


def test_what_a_distillation_keeps_has_the_names_that_it_had(config, corpus):
    run = open_run(config, corpus)
    assert (keep_corpus(config, corpus).digest, run.teacher.digest) == (
        "a10262e43e6ff5b3",
        "ab2328924d812007",
    )
    assert {student.name: student.trained for student in train_finalists(run)} == {
        "bag-of-words-3000": "8bf3cff897ea6703",
        "bag-of-words-15": "903c87c5e796920f",
        "bag-of-words-3000-on-gold-seed-7": "0741e9ab64aa1bc7",
        "bag-of-words-15-on-gold-seed-7": "23b5dfe68cb40bbc",
    }
