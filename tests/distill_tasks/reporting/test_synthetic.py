from dataclasses import replace

import pytest

from distill_tasks.core.notes import Rank
from distill_tasks.reporting.notes import gather_notes
from distill_tasks.reporting.rows import list_models
from distill_tasks.results.outcomes import Ablation
from distill_tasks.scoring.intervals import Figure
from distill_tasks.scoring.verdicts import PairedComparison, Verdict


def with_ablation(findings, low, high, verdict):
    name = findings.selection.chosen
    card = findings.held_out.candidates[name]
    gap = PairedComparison(Figure((low + high) / 2, low, high, 200), 0.01, verdict)
    found = Ablation(name, 1200, 1100, card, card, gap, reused=False)
    return replace(findings, ablation=found)


@pytest.mark.parametrize(
    ("low", "high", "verdict", "rank", "said"),
    [
        (0.01, 0.03, Verdict.BEATS, Rank.KNOW, "+2.00 points [+1.00, +3.00] (BEATS)"),
        (-0.03, -0.01, Verdict.NO_BEATS, Rank.ACT, "leave data.synthetic out"),
        (-0.01, 0.03, Verdict.INCONCLUSIVE, Rank.KNOW, "do not tell whether they help"),
    ],
)
def test_the_report_says_what_synthetic_rows_bring(findings, low, high, verdict, rank, said):
    changed = with_ablation(findings, low, high, verdict)
    (note,) = [note for note in gather_notes(changed) if "synthetic rows" in note.text]
    assert note.rank is rank
    assert said in note.text
    assert "gives 1,100 of them the class they were written for" in note.text


def test_the_control_stands_in_the_table_and_only_where_there_are_such_rows(findings):
    name = f"{findings.selection.chosen}-without-synthetic"
    rows = {row.name: row for row in list_models(with_ablation(findings, 0, 0, Verdict.NO_BEATS))}
    assert rows[name].quality == rows[findings.selection.chosen].quality
    assert rows[name].outcome.endswith("without the 1,200 synthetic rows")
    assert name not in {row.name for row in list_models(findings)}
    assert not [note for note in gather_notes(findings) if "synthetic rows" in note.text]
