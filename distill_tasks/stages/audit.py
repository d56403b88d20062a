"""Stage ``audit``: what the teacher's answers are worth, told before any student is trained."""

from __future__ import annotations

import logging

from distill_tasks.reporting.audit import say_audit
from distill_tasks.results.audit import Audit, audit_teacher
from distill_tasks.results.run import Run
from distill_tasks.stages.stage import stage

logger = logging.getLogger("potstill")


@stage("audit the teacher", retries=2)
def audit(run: Run) -> Audit:
    """Look at the teacher's answers, ask it some rows a second time, and tell what was found."""
    found = audit_teacher(run.open())
    for line in say_audit(found):
        logger.info("audit: %s", line)
    return found
