import json
from dataclasses import asdict, replace

import mlflow
import pytest
from samples import LAYERS, LAYERS_ONNX, WORDS_STUDENT

from distill_tasks.config import RegistryConfig
from distill_tasks.reporting.model_card import CardLinks, write_card
from distill_tasks.results.evaluator import Evaluator
from distill_tasks.scoring.promises import Promise, PromiseTest
from distill_tasks.scoring.verdicts import Verdict
from distill_tasks.students.controls import WORDS_ON_GOLD
from registry.aliases import tags_of
from registry.gate import judge
from registry.judging import read_measured
from registry.register import register_candidate


@pytest.fixture(scope="module")
def version(house):
    registered = house.register("cards", LAYERS)
    return house.client.get_model_version(registered.model, str(registered.version))


def test_a_version_says_what_goes_in_and_what_comes_out(version):
    signature = mlflow.models.get_model_info(f"models:/cards/{version.version}").signature
    assert [(one.name, str(one.dtype), one.default) for one in signature.params] == [
        ("text_column", "DataType.string", "text"),
        ("top_k", "DataType.long", None),
        ("threshold", "DataType.double", None),
    ]
    assert signature.outputs.input_names() == ["label", "confidence", "probabilities", "abstain"]


def test_a_version_has_an_input_example_that_it_can_answer(version):
    model = mlflow.pyfunc.load_model(f"models:/cards/{version.version}")
    example = model.input_example
    assert example == {"text": ["some text"]}
    assert len(model.predict(example)) == len(example) == 1


def test_a_version_carries_the_card_of_its_student(house, version):
    assert version.description.startswith(f"# {LAYERS} of animals\n")
    for link in (house.distillation.link, house.report.runs.compare):
        assert f"({link})" in version.description


def test_the_card_of_a_variant_says_how_it_runs(house):
    registered = house.register("variant-cards", LAYERS_ONNX)
    version = house.client.get_model_version("variant-cards", str(registered.version))
    parity = house.candidate(LAYERS_ONNX).parity
    assert version.description.startswith(f"# {LAYERS_ONNX} of animals\n")
    assert f"Runs as onnx: {parity}." in version.description
    assert (parity.flips, parity.answers, parity.change.value) == (0, 18, 0)


def test_a_student_and_its_variant_are_two_versions(house):
    first, second = (house.register("forms", name) for name in (LAYERS, LAYERS_ONNX))
    assert (first.version, second.version, second.reused) == (1, 2, False)
    tags = [tags_of(house.client, registered) for registered in (first, second)]
    assert [tag["candidate"] for tag in tags] == [LAYERS, LAYERS_ONNX]
    assert tags[0]["potstill.student"] != tags[1]["potstill.student"]


def test_a_version_is_tagged_with_its_student_seed_and_distillation(house, version):
    assert version.tags["potstill.student"] == house.candidate(LAYERS).student.digest
    assert version.tags["seed"] == "10"
    assert version.tags["distillation"] == house.distillation.digest
    assert version.tags["candidate"] == LAYERS
    assert version.run_id == house.distillation.run_id  # its page links the version
    assert version.source == f"models:/{house.report.runs.model_ids[LAYERS]}"


def test_a_version_carries_the_verdict_of_the_last_run_that_registered_it(house):
    def tag(registered):
        return tags_of(house.client, registered)["potstill.verdict"]

    assert tag(house.register("judged", LAYERS)) == "INCONCLUSIVE"  # the house has no controls
    assert tag(house.register("judged", LAYERS, Verdict.BEATS)) == "BEATS"
    again = house.register("judged", LAYERS, Verdict.NO_BEATS)
    assert (again.version, again.reused, tag(again)) == (1, True, "NO BEATS")


def test_a_new_version_is_the_challenger(house):
    first = house.register("newcomers", LAYERS)
    assert (first.version, first.reused) == (1, False)
    assert house.aliases("newcomers") == {"challenger": 1}
    second = house.register("newcomers", WORDS_STUDENT)
    assert (second.version, second.reused) == (2, False)
    assert house.aliases("newcomers") == {"challenger": 2}


def test_the_same_student_is_the_same_version_again(house):
    first = house.register("repeats", LAYERS)
    house.register("repeats", WORDS_STUDENT)
    again = house.register("repeats", LAYERS)
    assert (again.version, again.reused) == (first.version, True)
    assert len(house.client.search_model_versions("name = 'repeats'")) == 2
    assert house.aliases("repeats") == {"challenger": first.version}


def test_a_champion_registered_again_does_not_challenge_itself(house):
    champion = house.crown("reigning", LAYERS)
    assert house.register("reigning", LAYERS) == type(champion)("reigning", 1, reused=True)
    assert house.aliases("reigning") == {"champion": 1}


@pytest.mark.parametrize("model", ["two words", "a.b-c_1"])
def test_any_name_that_the_configuration_allows_can_be_registered(house, model):
    assert house.register(model, LAYERS).version == 1


def test_the_cheap_control_is_registered_where_the_configuration_asks_for_it(house):
    wanted = RegistryConfig(model="words", candidate=WORDS_ON_GOLD)
    config = house.config.model_copy(update={"registry": wanted})
    proof = replace(house.findings.proof, promises={WORDS_ON_GOLD: []})
    run = replace(house.findings.run, config=config)
    findings = replace(house.findings, run=run, proof=proof)
    control = findings.to_register
    assert control.name == WORDS_ON_GOLD
    card = write_card(findings, control, CardLinks("summary", "compare", "front"))
    assert "TF-IDF and logistic regression on gold with seed" in card
    assert "distilled" not in card
    report = replace(house.report, card=card)
    registered = register_candidate(findings, control, report, house.distillation)
    assert judge(config, house.held_out, registered, house.corpus.classes).promote
    texts = list(house.held_out.texts[:5])
    answers = mlflow.pyfunc.load_model(registered.uri).predict(texts)
    ours = Evaluator(run.open(), "held_out").ask_control(WORDS_ON_GOLD)
    expected = ours.logits[:5].argmax(axis=1)
    assert list(answers["label"]) == [house.corpus.classes[number] for number in expected]


def test_a_cheap_control_that_breaks_a_promise_or_limit_is_not_registered(house):
    select = house.config.select.model_copy(update={"max_disk_mb": 1e-9})
    registry = RegistryConfig(model="words", candidate=WORDS_ON_GOLD)
    config = house.config.model_copy(update={"registry": registry, "select": select})
    broken = PromiseTest(Promise("accuracy", 0.999), 0.5, 0.4, 0.6, rows=100, agreement=False)
    proof = replace(house.findings.proof, promises={WORDS_ON_GOLD: [broken]})
    run = replace(house.findings.run, config=config)
    findings = replace(house.findings, run=run, proof=proof)
    assert findings.to_register is None
    why = findings.why_nothing_is_registered
    assert why.startswith("words-on-gold: misses max_disk_mb 1e-09")
    assert f"breaks {broken}" in why


def test_records_of_a_version_are_words_in_its_tags_and_files_of_its_run(house):
    registered = house.register("recorded", LAYERS)
    tag = tags_of(house.client, registered)["potstill.measured"]
    assert tag.startswith("accuracy 1.0000 [")
    assert tag.endswith("on 100 held-out rows")
    measured = read_measured(house.client, registered)
    assert (measured.metric, measured.value) == ("accuracy", 1.0)
    old = json.dumps(asdict(replace(measured, value=0.5)))  # as a version of before keeps it
    house.client.set_model_version_tag("recorded", "1", "potstill.measured", old)
    assert read_measured(house.client, registered).value == 0.5


def test_the_champions_run_alone_is_marked(house):
    def mark():
        return house.client.get_run(house.distillation.run_id).data.tags["champion"]

    house.crown("marked", LAYERS)
    assert mark() == "version 1 of marked"
    house.crown("marked", WORDS_STUDENT)
    assert mark() == "version 2 of marked"
