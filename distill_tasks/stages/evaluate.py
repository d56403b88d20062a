"""Stage ``evaluate``: score what would be served on a split, beside teacher and controls."""

from __future__ import annotations

from distill_tasks.config import DistillConfig
from distill_tasks.core.digests import digest
from distill_tasks.data.corpus import Corpus
from distill_tasks.data.soft_labels import SoftLabelStore
from distill_tasks.results.evaluator import CONTROLS, TEACHER, Examiner
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
    scorer = Examiner(config, corpus, labels, split)
    models = {TEACHER: scorer.score("teacher", [scorer.exam.teacher])}
    if corpus.splits["train"].has_gold:
        for name in CONTROLS:
            if name == WORDS_ON_GOLD and not has_words(corpus.splits["train"]):
                continue
            key = digest(name, corpus.splits["train"].digest, *scorer.limit(name))
            models[name] = scorer.score(key, [scorer.ask_control(name)])
    for student in students:
        if student.served or student.candidate == student.student:
            models[student.name] = scorer.score_seeds([student])
    candidates, on_gold = (
        {
            name: scorer.score_seeds(
                [s for s in students if (s.candidate, s.taught) == (name, taught)]
            )
            for name in dict.fromkeys(s.candidate for s in students if s.taught == taught)
        }
        for taught in (True, False)
    )
    return Scores(split, models, candidates, on_gold, reused=scorer.made == 0)


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
