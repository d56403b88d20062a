"""Stage ``evaluate``: score what would be served on a split, beside teacher and controls."""

from __future__ import annotations

from distill_tasks.results.evaluator import Evaluator, answer_somewhere
from distill_tasks.results.outcomes import Scores
from distill_tasks.results.references import TEACHER, StudentReference
from distill_tasks.results.run import OpenRun, Run
from distill_tasks.scoring.scorecard import Scorecard
from distill_tasks.stages.stage import stage
from distill_tasks.students.controls import CONTROLS, WORDS_ON_GOLD, has_words


@stage("evaluate on {split}")
def evaluate(run: Run, students: list[StudentReference], split: str) -> Scores:
    """Score every model on a split."""
    opened = run.open()
    answer_somewhere(run, opened, students, split)
    return score_all(opened, students, split)


def score_all(run: OpenRun, students: list[StudentReference], split: str) -> Scores:
    """Score teacher, controls and students on a split; what was scored before is read again."""
    evaluator = Evaluator(run, split)
    models = {TEACHER: evaluator.score_teacher()}
    models |= _score_controls(evaluator)
    for student in students:
        if student.served or student.candidate == student.student:
            models[student.name] = evaluator.score_seeds([student])
    trained = [student for student in students if not student.is_teacher]
    candidates, on_gold = (
        {
            name: evaluator.score_seeds(
                [s for s in trained if (s.candidate, s.distilled) == (name, distilled)]
            )
            for name in dict.fromkeys(s.candidate for s in trained if s.distilled == distilled)
            if name not in CONTROLS
        }
        for distilled in (True, False)
    )
    return Scores(split, models, candidates, on_gold, reused=evaluator.made == 0)


def _score_controls(evaluator: Evaluator) -> dict[str, Scorecard]:
    """Score the controls that are no students, where there is gold for them to learn from."""
    train, cards = evaluator.run.corpus.splits["train"], {}
    if not train.has_gold:
        return {}
    for name in CONTROLS:
        if name == WORDS_ON_GOLD and not has_words(train):
            continue
        cards[name] = evaluator.score_control(name)
    return cards
