"""Stage ``ablate``: what synthetic rows bring, from the chosen student trained without them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from distill_tasks.core.errors import say_error, stop_if_disk_full
from distill_tasks.data.corpus import SYNTHETIC
from distill_tasks.execution.base import map_at_once
from distill_tasks.results.evaluator import Evaluator
from distill_tasks.results.grid import Grid, Trial
from distill_tasks.results.outcomes import Ablation
from distill_tasks.results.references import StudentReference
from distill_tasks.results.run import OpenRun, Run
from distill_tasks.results.selection import Selection
from distill_tasks.results.trained import train_one
from distill_tasks.results.trainers import start_trainers
from distill_tasks.scoring.verdicts import PairedComparison, compare_answers
from distill_tasks.stages.stage import stage

logger = logging.getLogger("potstill")


@stage("train without synthetic rows")
def ablate(run: Run, grid: Grid, selection: Selection) -> Ablation | None:
    """Train the chosen student again without the synthetic rows."""
    seeds = find_ablated(grid, selection)
    trials = list_ablated(grid, seeds)
    with start_trainers(run, trials) as trainers:
        return ablate_synthetic(
            run.open(), grid, selection, train=trainers.train, at_once=trainers.at_once
        )


def ablate_synthetic(
    run: OpenRun,
    grid: Grid,
    selection: Selection,
    train: Callable[[Trial], StudentReference] | None = None,
    at_once: int = 1,
) -> Ablation | None:
    """Compare the chosen student, or the first finalist, with the same one without synthetic rows.

    It has the same recipe and seeds; both are compared as they were trained, over all seeds. None
    where there are no such rows, no finalist, or its training fails.
    """
    seeds = find_ablated(grid, selection)
    if SYNTHETIC not in run.corpus.splits or not seeds:
        return None
    student = seeds[0].student
    try:
        trials = list_ablated(grid, seeds)
        ablated = map_at_once(train or partial(train_one, run), trials, at_once)
    except Exception as error:  # noqa: BLE001  # it is no candidate
        stop_if_disk_full(error)
        logger.warning("ablate %s: left out, %s", student, say_error(error))
        return None
    return _compare(run, student, seeds, ablated)


def find_ablated(grid: Grid, selection: Selection) -> list[StudentReference]:
    """Return the seeds of the student that is trained again; none where nothing competes."""
    finalists = {one.student.name: one.student.student for one in selection.candidates}
    names = [name for name in (selection.chosen, *selection.leading) if name in finalists]
    students = [finalists[name] for name in names[:1]]
    return [one for one in grid.of(students) if one.distilled and one.candidate in students]


def list_ablated(grid: Grid, seeds: list[StudentReference]) -> list[Trial]:
    """Return the trials of these seeds without the synthetic rows."""
    return [
        Trial(grid.settings(one.student), one.seed, served=one.served, synthetic=False)
        for one in seeds
    ]


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
