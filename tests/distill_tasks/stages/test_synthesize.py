import random

import pytest
from answering import judge, write
from endpoint import ScriptedEndpoint
from endpoint_script import Fault, Script

from distill_tasks.config import parse_config
from distill_tasks.core.errors import InputError, PotstillError
from distill_tasks.llm.assignments import TEXTS_EACH
from distill_tasks.stages.prepare import check_config
from distill_tasks.stages.synthesize import MOST_TIMES, estimate_texts, write_texts


@pytest.fixture
def endpoint():
    with ScriptedEndpoint(judge, Script(), author=write) as running:
        yield running


@pytest.fixture
def asked(written, endpoint):
    written["teacher"] = {
        "kind": "api",
        "base_url": endpoint.url,
        "model": "oracle-large",
        "licence": {"name": "Terms", "url": "https://example.org/terms", "may_train": "yes"},
    }
    written["students"] = [{"family": "bag_of_words"}]
    return parse_config(written, "test")


def test_so_many_new_texts_of_each_class_are_written_once(asked, endpoint):
    corpus = check_config(asked)
    assert estimate_texts(asked, corpus, 20).requests == 6
    found = write_texts(asked, corpus, 20)
    assert found.per_class == dict.fromkeys(corpus.classes, 20)
    assert len(found.texts) == 60
    assert not found.texts.keys() & set(corpus.texts)
    assert found.removed["synthetic"] > 0
    assert found.written > 60
    requests = len(endpoint.ledger)
    assert requests * TEXTS_EACH == found.written
    assert write_texts(asked, corpus, 20) == found
    assert estimate_texts(asked, corpus, 20).requests == 0
    assert len(endpoint.ledger) == requests
    more = write_texts(asked, corpus, 30)
    assert found.texts.items() <= more.texts.items()
    assert not endpoint.ledger.find_asked_twice()


def test_a_model_that_repeats_rows_is_asked_up_to_a_limit_and_then_refused(asked, endpoint):
    corpus = check_config(asked)
    leaked = corpus.splits["held_out"].texts[:5]

    def repeat(_name: str, count: int, draw: random.Random) -> list[str]:
        return draw.choices(leaked, k=count)

    endpoint.model = type(endpoint.model)(judge, repeat)
    with pytest.raises(PotstillError, match=r"None of 120 texts .* is new"):
        write_texts(asked, corpus, 20)
    assert len(endpoint.ledger) == 3 * MOST_TIMES * 2


def test_prose_and_refusals_write_nothing(asked, endpoint):
    endpoint.script.rates = {Fault.OFF_LIST: 0.5, Fault.REFUSED: 0.5}
    with pytest.raises(PotstillError, match="None of 0 texts"):
        write_texts(asked, check_config(asked), 10)


def test_a_teacher_that_writes_nothing_says_so(config):
    with pytest.raises(InputError, match="A teacher of kind finetune writes no texts") as caught:
        write_texts(config, check_config(config), 10)
    assert "\n" not in str(caught.value)
