from dataclasses import replace

import pytest
from builders import make_footprint, make_latencies, make_latency, open_run, train_finalists
from samples import GOOD, POOR, write_words

from distill_tasks.config import RegistryConfig, parse_config
from distill_tasks.data.rows import read_corpus
from distill_tasks.data.scored import hold_back
from distill_tasks.stages.evaluate import score_all
from distill_tasks.stages.select import make_field


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    written = write_words(tmp_path_factory.mktemp("select")) | {"evaluate": {"seeds": 2}}
    return open_run(parse_config(written, "test"))


@pytest.fixture(scope="module")
def finalists(run):
    return train_finalists(run)


@pytest.fixture
def compete(run, finalists):
    """Make a field in which a variant of the good student answers as some student does."""

    def make(like, variant, **registry):
        name = f"{GOOD}-{variant}"
        (good,), (other,) = (
            [s for s in finalists if s.served and s.name == n] for n in (GOOD, like)
        )
        served = replace(good, name=name, candidate=name, variant=variant, digest=other.digest)
        students = [*finalists, replace(served, folder=other.folder)]
        allowed = RegistryConfig(model="small", **registry)
        ours = replace(run, config=run.config.model_copy(update={"registry": allowed}))
        scores = score_all(ours, students, "validation")
        times = make_latencies({GOOD: 0.4, POOR: 0.2})
        timed = replace(
            times,
            by_name=times.by_name | {name: make_latency(0.1, noise=0.03)},
            footprints=times.footprints | {name: make_footprint(30)},
        )
        return make_field(ours, students, scores, timed)

    return make


def test_a_field_has_every_candidate_with_what_it_takes_and_the_noise_of_the_run(compete):
    field = compete(GOOD, "onnx")
    assert [c.name for c in field.candidates] == [GOOD, POOR, f"{GOOD}-onnx"]
    assert (field.band, field.objectives) == (0.03, ())
    assert [c.latency.p95_ms for c in field.candidates] == [0.4, 0.2, 0.1]
    assert [c.read("resident_mb") for c in field.candidates] == [60, 60, 30]
    good, _, variant = field.candidates
    assert variant.read("parameters") == good.student.parameters
    assert variant.read("disk_mb") == good.student.disk_mb
    assert good.parity is None


def test_a_variant_that_answers_alike_competes(compete):
    for variant in ("onnx", "onnx_int8"):
        *_, found = compete(GOOD, variant).candidates
        assert (found.rejected, found.parity.flips, found.parity.answers) == ("", 0, 90)
        assert found.parity.largest_logit_difference == found.parity.change.value == 0


def test_a_variant_that_answers_otherwise_is_rejected(compete):
    *_, plain = compete(POOR, "onnx").candidates
    assert plain.rejected.startswith("rejected: its logits differ from torch's by up to ")
    *_, int8 = compete(POOR, "onnx_int8").candidates
    assert "rejected: loses more than the 0.5 points allowed, -" in int8.rejected
    assert int8.parity.flips > 20
    *_, allowed = compete(POOR, "onnx_int8", allowed_drop=0.9).candidates
    assert allowed.rejected == ""
    *_, still = compete(POOR, "onnx", allowed_drop=0.9).candidates
    assert still.rejected == plain.rejected  # float32 may not lose anything


# Rows that the teacher alone has labelled.


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """The field of a run that holds transfer rows back, and its students' field on gold alone."""
    written = write_words(tmp_path_factory.mktemp("scored"))
    config = parse_config(written | {"select": {"min_retention": 0.9}}, "test")
    corpus = hold_back(read_corpus(config.data, config.seed), 120, config.seed)
    run = open_run(config, corpus)
    students = train_finalists(run)
    scores, times = score_all(run, students, "validation"), make_latencies({GOOD: 0.4, POOR: 0.2})
    field = make_field(run, students, scores, times)
    left = {name: split for name, split in corpus.splits.items() if name != "scored"}
    alone = replace(run, corpus=replace(corpus, splits=left))
    return field, make_field(alone, students, scores, times)


def test_rows_labelled_by_the_teacher_alone_make_the_quality_surer(scored):
    surer, alone = scored
    for ours, theirs in zip(surer.candidates, alone.candidates, strict=True):
        assert theirs.quality.value == theirs.validation.quality.value
        assert ours.quality.rows == theirs.quality.rows
        assert ours.quality.high - ours.quality.low < theirs.quality.high - theirs.quality.low
    assert surer.redraws.qualities.std(axis=0) == pytest.approx(
        alone.redraws.qualities.std(axis=0), rel=0.5
    )


def test_the_promise_on_validation_follows_the_surer_quality_and_its_ends_stay(scored):
    surer, alone = scored
    for ours, theirs in zip(surer.candidates, alone.candidates, strict=True):
        (test,), (before,) = ours.promises, theirs.promises
        assert (test.low, test.high) == (before.low, before.high)
        teacher = theirs.quality.value / before.value
        moved = ours.quality.value - theirs.quality.value
        assert test.value == pytest.approx(before.value + moved / teacher)
        assert ours.margin == pytest.approx(test.value - 0.9)
    middle = surer.redraws.margins.mean(axis=0)
    assert middle == pytest.approx([c.margin for c in surer.candidates], abs=0.02)
