import json

import pytest
from builders import change_weights
from samples import CLASSES

from distill_tasks.core.errors import InputError
from distill_tasks.data.corpus import Corpus
from distill_tasks.data.settings import RowFormat
from distill_tasks.teachers.sequence_classifier import TransformersTeacher


def test_ready_digest_sees_weights_and_max_length(copied_base, corpus):
    teacher = TransformersTeacher(model=str(copied_base), max_length=16)
    longer = teacher.model_copy(update={"max_length": 17})
    before = teacher.digest(corpus, 0, balanced=False)
    assert longer.digest(corpus, 0, balanced=False) != before
    change_weights(copied_base)
    assert teacher.digest(corpus, 0, balanced=False) != before


def check_classes(teacher, classes, problem):
    teacher.check_rows(Corpus({}, classes, problem=problem), RowFormat())


def test_ready_teacher_with_other_classes_is_refused(tiny_base):
    teacher = TransformersTeacher(model=str(tiny_base))
    check_classes(teacher, ("fish", "cats", "dogs"), "single_label")
    with pytest.raises(InputError, match=r"cats, dogs, fish; the data has cats, cows"):
        check_classes(teacher, ("cats", "cows"), "single_label")


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("multi_label_classification", "single_label"),
        ("single_label_classification", "multi_label"),
    ],
)
def test_ready_teacher_of_another_problem_is_refused(copied_base, said, problem):
    settings = copied_base / "config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"problem_type": said}))
    teacher = TransformersTeacher(model=str(copied_base))
    with pytest.raises(InputError, match=f"is of {said}; the configuration says .*{problem}"):
        check_classes(teacher, CLASSES, problem)


@pytest.mark.parametrize("problem", ["single_label", "multi_label"])
def test_ready_teacher_that_tells_no_problem_is_taken_at_the_users_word(tiny_base, problem):
    assert "problem_type" not in json.loads((tiny_base / "config.json").read_text())
    check_classes(TransformersTeacher(model=str(tiny_base)), CLASSES, problem)
