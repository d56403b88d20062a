"""Stage ``audit``: what the teacher's answers are worth, told before any student is trained."""

from __future__ import annotations

import logging

from distill_tasks.reporting.audit import ANSWERS, say_audit, write_answers
from distill_tasks.results.audit import Audit, audit_teacher
from distill_tasks.results.run import OpenRun, Run
from distill_tasks.results.suspicious import find_suspicious
from distill_tasks.stages.stage import stage

logger = logging.getLogger("potstill")


@stage("audit the teacher", retries=2)
def audit(run: Run) -> Audit:
    """Look at the teacher's answers, ask it some rows a second time, and tell what was found.

    The answers to look at are listed in ``work_dir``.
    """
    return audit_answers(run.open())


def audit_answers(run: OpenRun) -> Audit:
    """Audit the teacher, tell what was found, and list the answers to look at."""
    found, suspicious = audit_teacher(run), find_suspicious(run)
    write_answers(suspicious, run.store.root)
    listed = f"{len(suspicious):,} answers to look at are listed in {run.store.root / ANSWERS}"
    for line in [*say_audit(found), listed]:
        logger.info("audit: %s", line)
    return found
