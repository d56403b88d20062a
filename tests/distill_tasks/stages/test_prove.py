from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
from builders import open_run, train_finalists
from samples import GOOD, POOR, make_wordy_rows, save_answers, write_words
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from distill_tasks.config import parse_config
from distill_tasks.data.corpus import NO_LABEL, Corpus, Split
from distill_tasks.results.evaluator import Evaluator
from distill_tasks.results.outcomes import Proof
from distill_tasks.results.references import StudentReference
from distill_tasks.results.run import OpenRun
from distill_tasks.scoring.verdicts import Verdict
from distill_tasks.serving.served_model import open_model
from distill_tasks.stages.evaluate import score_all
from distill_tasks.stages.prove import NO_RATIO, judge_student, prove_all


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_words(tmp_path_factory.mktemp("prove"))


@dataclass(frozen=True)
class Proven:
    """Finalists with their controls, and what was proven of them."""

    run: OpenRun
    students: list[StudentReference]
    proof: Proof

    @property
    def rows(self):
        return self.run.corpus


def prove(written, **changes):
    run = open_run(parse_config(written | changes, "test"))
    students = train_finalists(run)
    return Proven(run, students, prove_all(run, students, [GOOD, POOR]))


@pytest.fixture(scope="module")
def findings(written):
    return prove(written)


def seeds_of(findings, name):
    return [student for student in findings.students if student.candidate == name]


def prove_again(findings, corpus=None, students=None, leading=(GOOD, POOR)):
    tested = findings.students if students is None else students
    run = replace(findings.run, corpus=corpus or findings.rows)
    return prove_all(run, tested, list(leading))


def without_gold(corpus: Corpus) -> Corpus:
    texts = corpus.splits["held_out"].texts
    bare = Split(texts, np.full(len(texts), NO_LABEL))
    return replace(corpus, splits=corpus.splits | {"held_out": bare})


def right(findings, student):
    """Which held-out rows a served folder answers rightly."""
    held_out, classes = findings.rows.splits["held_out"], findings.rows.classes
    said = [answer.label for answer in open_model(student.folder).answer(held_out.texts)]
    return np.array(said) == np.array(classes)[held_out.gold]


def test_a_student_that_learnt_words_from_its_teacher_beats_itself_on_gold_alone(findings):
    judgement = findings.proof.judgements[GOOD]
    assert judgement.verdict is Verdict.BEATS
    assert judgement.reason.startswith("+")
    assert "against the same student on gold alone, p < 0.001" in judgement.reason
    assert "rows would be needed" not in judgement.reason
    assert judgement.flags == []


def test_the_difference_and_p_are_those_of_the_answers_of_the_served_folders(findings):
    distilled, alone = (right(findings, student) for student in seeds_of(findings, GOOD))
    table = [
        [(distilled & alone).sum(), (distilled & ~alone).sum()],
        [(~distilled & alone).sum(), (~distilled & ~alone).sum()],
    ]
    evaluator = Evaluator(findings.run, "held_out")
    comparison = judge_student(evaluator, seeds_of(findings, GOOD)).comparison
    assert comparison.difference.value == pytest.approx(distilled.mean() - alone.mean())
    assert comparison.difference.rows == 200
    assert comparison.p_value == pytest.approx(mcnemar(table, exact=True).pvalue, rel=1e-6)


def test_p_is_corrected_over_all_finalists_after_holm(findings):
    evaluator = Evaluator(findings.run, "held_out")
    plain = [
        judge_student(evaluator, seeds_of(findings, name)).comparison.p_value
        for name in (GOOD, POOR)
    ]
    corrected = [findings.proof.judgements[name].comparison.p_value for name in (GOOD, POOR)]
    assert corrected == pytest.approx(multipletests(plain, method="holm")[1])
    assert corrected[0] == pytest.approx(2 * plain[0])
    alone = prove_again(findings, leading=[GOOD]).judgements[GOOD].comparison
    assert alone.p_value == pytest.approx(plain[0])


def test_the_ratio_is_the_share_of_the_way_from_the_control_to_the_teacher(findings):
    distilled, alone = (right(findings, s).mean() for s in seeds_of(findings, GOOD))
    teacher = score_all(findings.run, [], "held_out").models["teacher"].quality.value
    judgement = findings.proof.judgements[GOOD]
    share, lead = judgement.distillation_ratio, judgement.teacher_lead
    assert lead.value == pytest.approx(teacher - alone)
    assert share.value == pytest.approx((distilled - alone) / (teacher - alone))
    assert share.low < share.value < share.high


def test_an_inconclusive_student_is_told_why_and_how_many_rows_there_are(findings):
    judgement = findings.proof.judgements[POOR]
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.reason.endswith("there are 200")
    assert "more held-out rows would narrow the interval" in judgement.reason


def test_a_difference_too_small_for_the_rows_names_the_rows_it_would_take(findings):
    held_out = findings.rows.splits["held_out"]
    distilled, alone = (right(findings, student) for student in seeds_of(findings, GOOD))
    apart, alike = np.flatnonzero(distilled & ~alone)[:3], np.flatnonzero(distilled == alone)[:37]
    few = replace(
        findings.rows,
        splits=findings.rows.splits | {"held_out": held_out.take(np.r_[apart, alike])},
    )
    judgement = prove_again(findings, few).judgements[GOOD]
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "held-out rows would be needed to call a difference of this size" in judgement.reason
    needed = int(judgement.reason.split("about ")[1].split(" ")[0].replace(",", ""))
    assert 40 < needed < 400
    assert judgement.reason.endswith("there are 40")


def test_by_macro_f1_a_class_of_a_few_rows_proves_nothing_and_is_named(findings):
    held_out = findings.rows.splits["held_out"]
    distilled, alone = (right(findings, student) for student in seeds_of(findings, GOOD))
    others, rare = (held_out.gold != 2), (held_out.gold == 2)
    alike = np.flatnonzero(others & (distilled == alone))
    won = np.flatnonzero(rare & distilled & ~alone)[:3]  # the rare class is won on all of its rows
    few = replace(
        findings.rows,
        splits=findings.rows.splits | {"held_out": held_out.take(np.r_[won, alike])},
    )
    config = findings.run.config
    config = config.model_copy(
        update={"select": config.select.model_copy(update={"metric": "macro_f1"})}
    )
    run = replace(findings.run, config=config)
    judgement = prove_all(replace(run, corpus=few), findings.students, [GOOD]).judgements[GOOD]
    assert judgement.comparison.difference.value > 0.1
    assert judgement.comparison.p_value > 0.2
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "held-out has too few rows of fish (3): macro F1 counts" in judgement.reason
    whole = prove_all(run, findings.students, [GOOD]).judgements[GOOD]
    assert whole.verdict is Verdict.BEATS
    assert "too few rows" not in whole.reason


def test_without_gold_on_held_out_nothing_can_be_proven_and_the_reason_says_so(findings):
    proof = prove_again(findings, without_gold(findings.rows))
    for judgement in proof.judgements.values():
        assert judgement.verdict is Verdict.INCONCLUSIVE
        assert "held_out has no gold" in judgement.reason
        assert (judgement.comparison, judgement.distillation_ratio) == (None, None)
    assert not proof.panels[GOOD].has_gold
    assert set(proof.panels[GOOD].errors) == {"disagreements"}


def test_without_controls_nothing_can_be_proven_and_the_reason_says_so(findings):
    distilled = [student for student in findings.students if student.distilled]
    judgement = prove_again(findings, students=distilled).judgements[GOOD]
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "evaluate.controls is off" in judgement.reason
    assert judgement.comparison is None


def test_no_finalist_is_no_proof(findings):
    proof = prove_again(findings, leading=[])
    assert (proof.judgements, proof.panels, proof.production) == ({}, {}, {})


INT8 = f"{GOOD}-onnx-int8"


@pytest.fixture(scope="module")
def with_variant(findings):
    """All students, and as an int8 variant of the good one a model that answers otherwise."""
    (good, _), (poor, _) = seeds_of(findings, GOOD), seeds_of(findings, POOR)
    answers = ("digest", "folder", "calibration")
    variant = replace(good, **{name: getattr(poor, name) for name in answers})
    variant = replace(variant, name=INT8, candidate=INT8, variant="onnx_int8")
    return [*findings.students, variant]


@pytest.fixture(scope="module")
def proof_of_variant(findings, with_variant):
    return prove_again(findings, students=with_variant, leading=[INT8, POOR])


def test_a_variant_that_leads_is_judged_against_the_control_of_its_student(
    findings, with_variant, proof_of_variant
):
    assert list(proof_of_variant.judgements) == list(proof_of_variant.panels) == [INT8, POOR]
    control = right(findings, seeds_of(findings, GOOD)[1])
    expected = right(findings, with_variant[-1]).mean() - control.mean()
    judgement = proof_of_variant.judgements[INT8]
    assert judgement.comparison.difference.value == pytest.approx(expected)
    assert "against the same student on gold alone" in judgement.reason
    by_torch = findings.proof.judgements
    assert judgement.teacher_lead.value == pytest.approx(by_torch[GOOD].teacher_lead.value)
    assert proof_of_variant.panels[INT8] == findings.proof.panels[POOR]


def test_variants_are_no_more_chances_to_be_lucky(findings, with_variant):
    proof = prove_again(findings, students=with_variant)
    assert proof.judgements == findings.proof.judgements  # Holm counts finalists
    assert proof.panels == findings.proof.panels


def test_every_variant_is_compared_with_its_student_on_held_out(
    findings, with_variant, proof_of_variant
):
    (name,) = proof_of_variant.parities
    parity = proof_of_variant.parities[name]
    served, variant = (right(findings, s) for s in (seeds_of(findings, GOOD)[0], with_variant[-1]))
    assert (name, parity.variant, parity.answers) == (INT8, "onnx_int8", 200)
    assert parity.change.value == pytest.approx(variant.mean() - served.mean())
    assert parity.flips >= (variant != served).sum() > 0
    assert findings.proof.parities == {}


def test_a_proof_counts_for_the_candidates_that_led_alone(findings, with_variant, proof_of_variant):
    again = prove_again(findings, students=with_variant, leading=[INT8, POOR])
    assert again == replace(proof_of_variant, reused=True)
    assert not prove_again(findings, students=with_variant, leading=[POOR, INT8]).reused


def test_a_proof_is_kept_and_read_back_as_it_was(findings):
    assert not findings.proof.reused
    again = prove_again(findings)
    assert again == replace(findings.proof, reused=True)
    assert not prove_again(
        findings,
        findings.rows.__class__(
            findings.rows.splits
            | {"held_out": findings.rows.splits["held_out"].take(np.arange(150))},
            findings.rows.classes,
        ),
    ).reused


def test_a_teacher_that_is_no_better_than_gold_alone_gives_no_ratio(written, tmp_path):
    rows = [pd.read_parquet(path) for path in written["data"].values()]
    save_answers(rows, tmp_path / "answers.parquet", wrong=0.7)
    teacher = {"kind": "saved", "path": str(tmp_path / "answers.parquet")}
    judgement = prove(written, teacher=teacher).proof.judgements[GOOD]
    assert judgement.verdict is Verdict.NO_BEATS
    assert judgement.distillation_ratio is None
    assert judgement.teacher_lead.low <= 0
    assert judgement.flags == [NO_RATIO]


@pytest.fixture(scope="module")
def seasons(written, tmp_path_factory):
    """Finalists on production rows like held-out, and on rows with words of another season."""
    folder, found = tmp_path_factory.mktemp("production"), {}
    for season in ("old", "new"):
        rows = make_wordy_rows(200, seed=5, season=season)
        rows[["text"]].to_parquet(folder / f"{season}.parquet", index=False)
        known = [pd.read_parquet(path) for path in written["data"].values()]
        save_answers([*known, rows], folder / f"answers-{season}.parquet", wrong=0.05)
        data = written["data"] | {"production": str(folder / f"{season}.parquet")}
        teacher = {"kind": "saved", "path": str(folder / f"answers-{season}.parquet")}
        found[season] = prove(written, data=data, teacher=teacher).proof
    return found


def test_a_student_good_on_held_out_and_bad_on_production_is_flagged(seasons):
    judgement, check = (
        kind[GOOD] for kind in (seasons["new"].judgements, seasons["new"].production)
    )
    assert judgement.verdict is Verdict.BEATS
    assert check.agreement.value < 0.5 < check.held_out_agreement.value
    worse, foreign = judgement.flags
    assert worse.startswith("worse on production: it agrees with the teacher on ")
    assert f"{100 * check.agreement.value:.1f} % [" in worse
    assert f"{100 * check.held_out_agreement.value:.1f} % [" in worse
    assert "of production is less familiar to it than 95 % of held-out" in foreign


def test_production_like_held_out_raises_no_flag(seasons):
    assert seasons["old"].judgements[GOOD].flags == []
    assert seasons["old"].production[GOOD].agreement.rows == 200
