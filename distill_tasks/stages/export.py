"""Stage ``export``: every trained transformer in the forms that other runtimes serve."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial

from distill_tasks.execution.base import map_at_once
from distill_tasks.results.exported import Forms, export_forms, export_there, has_all_forms
from distill_tasks.results.grid import Grid
from distill_tasks.results.references import TEACHER, StudentReference
from distill_tasks.results.run import OpenRun, Run
from distill_tasks.stages.stage import stage

Export = Callable[[StudentReference | None, Collection[str]], Forms]
"""Exports a student, or the teacher, but for the forms that are named."""


@stage("export to other runtimes")
def export(run: Run, grid: Grid) -> Grid:
    """Export what was trained, as many models at once as the configuration says."""
    opened = run.open()
    if run.config.execution.is_here:
        return export_all(opened, grid)
    new = [one for one in list_exported(opened, grid) if not has_all_forms(opened, one)]
    with run.config.execution.start(len(new)) as workers:

        def export_somewhere(student: StudentReference | None, left_out: Collection[str]) -> Forms:
            if student not in new:
                return export_forms(opened, student, left_out)
            there = partial(export_there, left_out=left_out)
            return workers.call(f"export {_name(student)}", there, run, student)

        return export_all(opened, grid, export_somewhere, workers.at_once)


def list_exported(run: OpenRun, grid: Grid) -> list[StudentReference | None]:
    """Return every distilled transformer, and None for a teacher that has weights here."""
    students = [one for one in grid.trained if one.variant == "torch" and one.distilled]
    return [*students, None] if run.teacher.model is not None else [*students]


def export_all(run: OpenRun, grid: Grid, make: Export | None = None, at_once: int = 1) -> Grid:
    """Return the grid with every distilled transformer, and the teacher, in every chosen form.

    A form in which one seed of a student cannot be exported is left out.
    """
    make, failed = make or partial(export_forms, run), dict(grid.failed)

    def export_and_note(student: StudentReference | None) -> list[StudentReference]:
        forms = make(student, list(failed))
        failed.update(forms.failed)
        return forms.made

    models = list_exported(run, grid)
    made = map_at_once(export_and_note, models, at_once)
    forms = {_name(student): made_of for student, made_of in zip(models, made, strict=True)}
    served = [one for student in grid.trained for one in (student, *forms.get(student.name, []))]
    served += forms.get(TEACHER, [])
    whole = [student for student in served if student.candidate not in failed]
    reused = failed == grid.failed and all(student.reused for student in whole)
    return replace(grid, students=whole, failed=failed, reused=reused)


def _name(student: StudentReference | None) -> str:
    return student.name if student else TEACHER
