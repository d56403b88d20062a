"""Stage ``evaluate``: score what would be served on a split, beside teacher and controls."""

from __future__ import annotations

from distill_tasks.config import DistillConfig
from distill_tasks.core.digests import digest
from distill_tasks.data.corpus import Corpus
from distill_tasks.data.soft_labels import SoftLabelStore
from distill_tasks.results.evaluator import CONTROLS, TEACHER, Evaluator
from distill_tasks.results.outcomes import Scores
from distill_tasks.results.references import CorpusReference, LabelsReference, StudentReference
from distill_tasks.stages.stage import stage
from distill_tasks.students.controls import (
    WORDS_ON_GOLD,
    has_words,
)


def score_all(
    config: DistillConfig,
    corpus: Corpus,
    labels: SoftLabelStore,
    students: list[StudentReference],
    split: str,
) -> Scores:
    """Score teacher, controls and students on a split; what was scored before is read again."""
    evaluator = Evaluator(config, corpus, labels, split)
    models = {TEACHER: evaluator.score("teacher", [evaluator.eval_split.teacher])}
    if corpus.splits["train"].has_gold:
        for name in CONTROLS:
            if name == WORDS_ON_GOLD and not has_words(corpus.splits["train"]):
                continue
            key = digest(name, corpus.splits["train"].digest, *evaluator.limit(name))
            models[name] = evaluator.score(key, [evaluator.ask_control(name)])
    for student in students:
        if student.served or student.candidate == student.student:
            models[student.name] = evaluator.score_seeds([student])
    candidates, on_gold = (
        {
            name: evaluator.score_seeds(
                [s for s in students if (s.candidate, s.distilled) == (name, distilled)]
            )
            for name in dict.fromkeys(s.candidate for s in students if s.distilled == distilled)
        }
        for distilled in (True, False)
    )
    return Scores(split, models, candidates, on_gold, reused=evaluator.made == 0)


@stage("evaluate on {split}")
def evaluate(
    config: DistillConfig,
    corpus: CorpusReference,
    labels: LabelsReference,
    students: list[StudentReference],
    split: str,
) -> Scores:
    """Score every model on a split."""
    return score_all(config, corpus.open(), labels.open(), students, split)
