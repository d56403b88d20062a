"""What the answers of each candidate cost beside the teacher's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill_tasks.measuring.cost import find_cost
from distill_tasks.results.outcomes import TEACHER

if TYPE_CHECKING:
    from distill_tasks.measuring.cost import Cost
    from distill_tasks.results.findings import Findings


def find_costs(findings: Findings) -> dict[str, Cost]:
    """Return the cost of each candidate by its name; empty where no prices are given."""
    prices, latencies = findings.config.cost, findings.latencies.by_name
    if prices is None:
        return {}
    trained = {student.trained: student.seconds for student in findings.students}
    seconds = findings.teacher.seconds + findings.labels.seconds + sum(trained.values())
    answers, teacher = len(set(findings.rows.texts)), latencies.get(TEACHER)
    costs = {
        candidate.name: find_cost(prices, candidate.latency, teacher, seconds, answers)
        for candidate in findings.selection.candidates
    }
    return {name: cost for name, cost in costs.items() if cost is not None}
