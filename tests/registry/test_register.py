import mlflow
import pytest
from samples import LAYERS, LAYERS_ONNX, WORDS_STUDENT

from distill_tasks.reporting.findings import say_footprint, say_verdict
from distill_tasks.results.evaluator import TEACHER
from distill_tasks.scoring.verdicts import Verdict
from registry.aliases import tags_of


@pytest.fixture(scope="module")
def version(house):
    registered = house.register("cards", LAYERS)
    return house.client.get_model_version(registered.model, str(registered.version))


def test_a_version_says_what_goes_in_and_what_comes_out(version):
    signature = mlflow.models.get_model_info(f"models:/cards/{version.version}").signature
    (column,) = signature.params
    assert (column.name, str(column.dtype), column.default) == (
        "text_column",
        "DataType.string",
        "text",
    )
    assert signature.outputs.input_names() == ["label", "confidence", "probabilities", "abstain"]


def test_a_version_has_an_input_example_that_it_can_answer(version):
    model = mlflow.pyfunc.load_model(f"models:/cards/{version.version}")
    example = model.input_example
    assert example == {"text": ["some text"]}
    assert len(model.predict(example)) == len(example) == 1


def test_a_version_carries_a_card_with_the_held_out_figures_as_a_table(house, version):
    candidate, card = house.candidate(LAYERS), version.description
    assert card.startswith(f"# {LAYERS} of animals\n")
    assert "\n| --- | --- | --- | --- |\n| " in card
    for name, figure in house.findings.held_out.models[LAYERS].figures.items():
        assert f"| {name} | {figure.value:.4f} | " in card
    assert f"{candidate.latency.p95_ms:.3g} ms (p95)" in card
    assert f"**Did the teacher help?** {say_verdict(house.judgement(LAYERS))}" in card
    assert f"Without mlflow: {say_footprint(candidate.footprint)}." in card
    assert "Runs as" not in card
    assert house.distillation.link in card
    assert house.report.compare in card


def test_the_card_of_a_variant_says_how_it_runs_and_how_far_it_is_from_torch(house):
    registered = house.register("variant-cards", LAYERS_ONNX)
    version = house.client.get_model_version("variant-cards", str(registered.version))
    parity = house.candidate(LAYERS_ONNX).parity
    assert version.description.startswith(f"# {LAYERS_ONNX} of animals\n")
    assert f"Runs as onnx: {parity}." in version.description
    assert "+0.00 points [+0.00, +0.00] against torch, 0 of 18 answers differ" in str(parity)


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
    assert version.run_id == house.report.run_ids[LAYERS] != house.report.run_ids[TEACHER]


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
