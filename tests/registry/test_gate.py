from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import make_latency
from samples import (
    CLASSES,
    LAYERS,
    LAYERS_ONNX,
    STATIC,
    WORDS_STUDENT,
)

from distill_tasks.config import RegistryConfig
from distill_tasks.core.errors import InputError
from distill_tasks.data.corpus import Split
from distill_tasks.scoring.intervals import Figure
from distill_tasks.scoring.verdicts import PairedComparison, Verdict
from distill_tasks.serving.served_model import open_model
from registry.aliases import tags_of
from registry.gate import judge, read_gate
from registry.judging import decide
from registry.promote import promote_version

BEATS, NO_BEATS, INCONCLUSIVE = Verdict.BEATS, Verdict.NO_BEATS, Verdict.INCONCLUSIVE


def judged(house, registered, rows=None, **registry):
    config = house.config.model_copy(
        update={"registry": RegistryConfig(model=registered.model, **({"first": "any"} | registry))}
    )
    return judge(config, rows or house.held_out, registered, house.corpus.classes)


@pytest.mark.parametrize(
    ("verdict", "low", "ratio", "promote"),
    [
        (BEATS, 0.02, 0.5, True),
        (BEATS, 0.02, 5.0, True),  # more accurate pays for slower
        (INCONCLUSIVE, -0.004, 0.5, True),  # the loss stays within what is allowed
        (INCONCLUSIVE, -0.005, 0.899, True),
        (INCONCLUSIVE, -0.006, 0.5, False),  # the loss may be larger
        (INCONCLUSIVE, -0.004, 0.9, False),  # hardly faster
        (INCONCLUSIVE, 0.001, 1.0, False),  # better for all we know, but not proven
        (NO_BEATS, -0.004, 0.5, True),  # worse by less than is allowed
        (NO_BEATS, -0.02, 0.1, False),
    ],
)
def test_a_challenger_wins_if_it_beats_or_is_as_good_and_clearly_faster(
    verdict, low, ratio, promote
):
    comparison = PairedComparison(Figure(low + 0.01, low, low + 0.02, 500), 0.5, verdict)
    won, reason = decide(comparison, make_latency(3 * ratio), make_latency(3), 0.005)
    assert won is promote
    assert f"{100 * (low + 0.01):+.2f} points [{100 * low:+.2f}, {100 * low + 2:+.2f}]" in reason
    assert f"{ratio:.2g}× the champion's p95 latency" in reason
    assert (str(verdict) in reason) == (verdict is BEATS or not promote)


@pytest.mark.parametrize(("noise", "promote"), [(0.1, True), (0.3, False)])
def test_a_challenger_is_not_faster_by_less_than_the_noise_of_the_run(noise, promote):
    comparison = PairedComparison(Figure(0.0, 0.0, 0.0, 500), 1.0, NO_BEATS)
    quiet, noisy = make_latency(0.8), make_latency(1.0, noise)
    assert decide(comparison, quiet, noisy, 0.005)[0] is promote
    assert decide(comparison, make_latency(0.8, noise), make_latency(1.0), 0.005)[0] is promote


@pytest.mark.parametrize(
    ("verdict", "first", "promote"),
    [(BEATS, "proven", True), (INCONCLUSIVE, "proven", False), (INCONCLUSIVE, "any", True)],
)
def test_a_first_champion_has_to_beat_itself_without_its_teacher(
    house, model, verdict, first, promote
):
    report = judged(house, house.register(model, STATIC, verdict), first=first)
    assert (report.promote, report.compared_to, report.verdict) == (promote, None, None)
    if promote:
        assert report.reason == "no champion yet: version 1 is the first"
    else:
        assert report.reason.startswith("there is no champion yet, but a first one must BEAT")
        assert "the verdict on this one is INCONCLUSIVE. It stays challenger" in report.reason
        assert "`registry.first: any` lets it through" in report.reason
        assert house.aliases(model) == {"challenger": 1}


def test_the_champion_is_not_compared_with_itself(house, model):
    champion = house.crown(model, STATIC)
    report = judged(house, champion)
    assert (report.promote, report.reused, report.verdict) == (False, True, None)
    assert report.reason == "version 1 is the champion already"


@pytest.fixture(scope="module")
def worse(house):
    """A challenger worse than the champion, with its report, its kept report and a second one."""
    house.crown("worse", WORDS_STUDENT)
    challenger = house.register("worse", STATIC)
    first = judged(house, challenger)
    return challenger, first, read_gate(house.client, challenger), judged(house, challenger)


def test_a_worse_challenger_is_refused(house, worse):
    _, report, _, _ = worse
    assert (report.promote, report.verdict, report.reused) == (False, NO_BEATS, False)
    assert (report.version, report.compared_to) == (2, 1)
    assert report.difference.high < 0
    assert report.difference.rows == len(house.held_out)


def test_a_verdict_is_kept_on_the_version_and_read_back(worse):
    _, first, kept, second = worse
    assert kept == second == replace(first, reused=True)


def test_a_kept_verdict_does_not_count_on_other_rows_or_against_another_champion(house, worse):
    challenger, first, *_ = worse
    rows = house.held_out.take(np.arange(50))
    other_rows = judged(house, challenger, rows)
    assert (other_rows.reused, other_rows.difference.rows) == (False, 50)
    assert other_rows.basis != first.basis
    house.crown("worse", LAYERS_ONNX)
    other_champion = judged(house, challenger, rows)
    assert (other_champion.reused, other_champion.compared_to) == (False, 3)


def test_a_kept_verdict_does_not_count_once_more_loss_is_allowed(house, model):
    house.crown(model, LAYERS_ONNX)
    challenger = house.register(model, STATIC)
    assert not judged(house, challenger).promote
    again = judged(house, challenger, allowed_drop=0.9)
    assert (again.reused, again.difference.rows) == (False, len(house.held_out))


def test_a_more_accurate_challenger_is_let_through_and_promoted(house, model):
    house.crown(model, STATIC)
    challenger = house.register(model, LAYERS_ONNX)
    report = judged(house, challenger)
    assert (report.promote, report.verdict) == (True, BEATS)
    assert report.difference.low > 0
    assert promote_version(house.client, challenger, report).moved
    assert house.aliases(model) == {"champion": 2, "previous": 1}


def test_one_rare_row_promotes_nothing_by_macro_f1_and_the_reason_names_its_class(house, model):
    house.crown(model, STATIC)
    challenger = house.register(model, LAYERS_ONNX)
    champion = open_model(house.candidate(STATIC).student.folder)
    gold, texts = house.held_out.gold, house.held_out.texts
    wrong = np.array([a.label for a in champion.answer(texts)]) != np.array(CLASSES)[gold]
    rare = gold[wrong][0]  # the only row of its class is one that the champion gets wrong
    rows = house.held_out.take(
        np.r_[np.flatnonzero(wrong & (gold == rare))[:1], np.flatnonzero(~wrong & (gold != rare))]
    )
    config = house.config.model_copy(
        update={
            "registry": RegistryConfig(model=model),
            "select": house.config.select.model_copy(update={"metric": "macro_f1"}),
        }
    )
    report = judge(config, rows, challenger, house.corpus.classes)
    assert report.difference.value > 0.3
    assert (report.promote, report.verdict) == (False, INCONCLUSIVE)
    assert f"held-out has too few rows of {CLASSES[rare]} (1): macro F1" in report.reason


def test_an_equally_accurate_and_clearly_faster_challenger_is_let_through(house, model):
    house.crown(model, LAYERS_ONNX)
    report = judged(house, house.register(model, WORDS_STUDENT))
    assert (report.promote, report.difference.value) == (True, 0)
    assert report.reason.startswith("as good within 0.5 points")


def test_no_version_is_let_through_whose_files_do_not_open(house, model):
    registered = house.register_copy(model, WORDS_STUDENT)
    house.files(model, 1).delete_artifacts("artifacts/student/weights.npz")
    with pytest.raises(InputError, match=f"^models:/{model}/1 cannot be opened"):
        judged(house, registered)
    assert house.aliases(model) == {"challenger": 1}


def change_classes(house, model, version, tmp_path):
    """Swap two class names in the description of a registered model."""
    place = house.files(model, version)
    about = Path(place.download_artifacts("artifacts/student/model.json", str(tmp_path)))
    text = about.read_text()
    swapped = text.replace("cats", "c").replace("dogs", "cats").replace('"c"', '"dogs"')
    assert swapped != text
    about.write_text(swapped)
    place.log_artifact(about, "artifacts/student")


def test_no_version_is_let_through_that_answers_otherwise_than_it_was_measured(
    house, model, tmp_path
):
    registered = house.register_copy(model, WORDS_STUDENT)
    change_classes(house, model, 1, tmp_path)
    report = judged(house, registered)
    assert not report.promote
    assert report.reason.startswith("its accuracy is 0.3400 as registered, but was 1.0000 when")


def test_a_version_whose_files_are_lost_is_registered_again_and_follows_itself(house, model):
    house.crown_copy(model, WORDS_STUDENT)
    house.files(model, 1).delete_artifacts()
    again = house.register(model, WORDS_STUDENT)
    assert (again.version, again.reused) == (2, False)
    report = judged(house, again)
    assert report.promote
    assert report.reason == "it is the student of version 1, which cannot be opened any more"
    assert house.register(model, WORDS_STUDENT) == replace(again, reused=True)


def test_a_champion_that_cannot_be_opened_is_kept_and_the_reason_says_what_to_do(house, model):
    house.crown_copy(model, STATIC)
    house.files(model, 1).delete_artifacts()
    report = judged(house, house.register(model, WORDS_STUDENT))
    assert (report.promote, report.verdict) == (False, None)
    assert report.reason.startswith(f"champion 1 cannot be compared with: models:/{model}/1 cannot")
    assert "take the alias champion off it" in report.reason


def test_a_champion_whose_files_are_back_is_compared_with(house, model, tmp_path):
    house.crown_copy(model, STATIC)
    place = house.files(model, 1)
    place.download_artifacts("", str(tmp_path))
    place.delete_artifacts()
    challenger = house.register(model, WORDS_STUDENT)
    assert judged(house, challenger).verdict is None
    place.log_artifacts(str(tmp_path))
    report = judged(house, challenger)
    assert (report.verdict, report.promote) == (BEATS, True)


@pytest.mark.parametrize("crowned", [False, True])
def test_a_student_that_is_as_good_without_its_teacher_is_never_promoted(house, crowned):
    model = f"no-beats-{crowned}"
    if crowned:
        house.crown(model, STATIC)
    challenger = house.register(model, LAYERS_ONNX, NO_BEATS)  # it would beat this champion
    before = house.aliases(model)
    report = judged(house, challenger)
    assert (report.promote, report.difference) == (False, None)
    assert report.reason.startswith("NO BEATS: held-out says")
    assert not promote_version(house.client, challenger, report).moved
    assert house.aliases(model) == before
    assert replace(read_gate(house.client, challenger), reused=False) == report
    assert tags_of(house.client, challenger)["gate"] == "failed"
    assert judged(house, house.register(model, LAYERS_ONNX, INCONCLUSIVE)).promote


def test_nothing_is_proven_on_rows_without_gold(house, model):
    house.crown(model, STATIC)
    texts = house.held_out.texts
    report = judged(house, house.register(model, LAYERS), Split(texts, np.full(len(texts), -1)))
    assert (report.promote, report.verdict) == (False, None)
    assert "no gold labels" in report.reason
