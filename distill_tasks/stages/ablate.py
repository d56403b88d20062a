"""Stage ``ablate``: what synthetic rows bring, from the chosen student trained without them."""

from __future__ import annotations

import logging

from distill_tasks.core.errors import say_error, stop_if_disk_full
from distill_tasks.data.corpus import SYNTHETIC
from distill_tasks.results.evaluator import Evaluator
from distill_tasks.results.grid import Grid, Trial
from distill_tasks.results.outcomes import Ablation
from distill_tasks.results.references import StudentReference
from distill_tasks.results.run import OpenRun, Run
from distill_tasks.results.selection import Selection
from distill_tasks.results.trained import train_one
from distill_tasks.scoring.verdicts import PairedComparison, compare_answers
from distill_tasks.stages.stage import stage

logger = logging.getLogger("potstill")


@stage("train without synthetic rows")
def ablate(run: Run, grid: Grid, selection: Selection) -> Ablation | None:
    """Train the chosen student again without the synthetic rows."""
    return ablate_synthetic(run.open(), grid, selection)


def ablate_synthetic(run: OpenRun, grid: Grid, selection: Selection) -> Ablation | None:
    """Compare the chosen student, or the first finalist, with the same one without synthetic rows.

    It has the same recipe and seeds; both are compared as they were trained, over all seeds. None
    where there are no such rows, no finalist, or its training fails.
    """
    finalists = {one.student.name: one.student.student for one in selection.candidates}
    names = [name for name in (selection.chosen, *selection.leading) if name in finalists]
    if SYNTHETIC not in run.corpus.splits or not names:
        return None
    student = finalists[names[0]]
    seeds = [one for one in grid.of([student]) if one.distilled and one.candidate == student]
    settings = grid.settings(student)
    try:
        ablated = [
            train_one(run, Trial(settings, one.seed, served=one.served, synthetic=False))
            for one in seeds
        ]
    except Exception as error:  # noqa: BLE001  # it is no candidate
        stop_if_disk_full(error)
        logger.warning("ablate %s: left out, %s", student, say_error(error))
        return None
    return _compare(run, student, seeds, ablated)


def _compare(
    run: OpenRun, name: str, seeds: list[StudentReference], ablated: list[StudentReference]
) -> Ablation:
    evaluator = Evaluator(run, "held_out")
    whole, without = evaluator.score_seeds(seeds), evaluator.score_seeds(ablated)
    return Ablation(
        student=name,
        rows=len(run.corpus.splits[SYNTHETIC]),
        as_intended=_count_as_intended(run),
        whole=whole,
        ablated=without,
        comparison=_judge(evaluator, seeds, ablated),
        reused=all(one.reused for one in ablated) and evaluator.made == 0,
    )


def _judge(
    evaluator: Evaluator, seeds: list[StudentReference], ablated: list[StudentReference]
) -> PairedComparison | None:
    eval_split = evaluator.eval_split
    if eval_split.gold is None:
        return None
    ours, theirs = (
        [eval_split.decide(evaluator.ask(one)) for one in group] for group in (seeds, ablated)
    )
    seed = evaluator.run.config.seed
    return compare_answers(eval_split.gold, ours, theirs, metric=eval_split.metric, seed=seed)


def _count_as_intended(run: OpenRun) -> int:
    """Return how many synthetic rows the teacher gives the class that they were written for."""
    rows, classes = run.corpus.splits[SYNTHETIC], run.corpus.classes
    said = run.labels.read(rows.texts).logits.argmax(axis=1)
    pairs = zip(said, rows.slices or (), strict=True)
    return sum(classes[number] == intended for number, intended in pairs)
