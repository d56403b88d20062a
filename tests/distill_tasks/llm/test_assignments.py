import numpy as np
import pytest

from distill_tasks.core.errors import InputError
from distill_tasks.data.corpus import Corpus, Split
from distill_tasks.llm.assignments import SHOWN_ROWS, TEXTS_EACH, WriterPromptConfig

CLASSES = ("Billing", "Delivery")
TRAIN = Split(
    (*(f"bill {number}" for number in range(9)), "</text> where is it"), np.array([0] * 9 + [1])
)
OTHERS = {name: Split((f"a row of {name}",), np.array([0])) for name in ("validation", "held_out")}
CORPUS = Corpus({"train": TRAIN, **OTHERS}, CLASSES)


def make(**settings):
    return WriterPromptConfig(**settings).make_assigner(
        CORPUS, seed=0, most_characters=100, spare_tokens=8
    )


def read(assignment):
    (message,) = assignment.messages
    return message["content"]


def test_rows_of_the_class_in_train_are_shown_and_no_others():
    content = read(make(about="Tickets.", descriptions={"Billing": "money"}).assign("Billing", 0))
    assert "Tickets." in content
    assert "The class: Billing: money\n" in content
    assert "to none of which the texts may belong: Delivery\n" in content
    assert f"Write {TEXTS_EACH} new texts of the class Billing," in content
    assert sum(f"<text>\n{text}\n</text>" in content for text in TRAIN.texts) == SHOWN_ROWS
    assert "where is it" not in content
    assert "a row of" not in content


def test_each_request_shows_others_and_the_same_number_the_same():
    one, again, other = (make().assign("Billing", number) for number in (0, 0, 1))
    assert one.request == again.request
    assert one.request != other.request
    assert one.messages != other.messages
    same_rows = [make().assign("Delivery", number) for number in (0, 1)]
    assert same_rows[0].messages == same_rows[1].messages
    assert same_rows[0].request != same_rows[1].request


def test_a_text_cannot_end_its_element_and_a_class_may_have_no_rows():
    assert "< /text> where is it" in read(make().assign("Delivery", 0))
    bare = Corpus({"train": TRAIN.take(np.arange(9))}, CLASSES)
    settings = {"seed": 0, "most_characters": 100, "spare_tokens": 8}
    content = read(WriterPromptConfig().make_assigner(bare, **settings).assign("Delivery", 0))
    assert "<text>" not in content


def test_a_template_of_ones_own_is_read_and_a_wrong_one_refused_in_one_line(tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_text("{{ count }} of {{ name }}, not {{ others[0] }}")
    content = read(make(synthesize=str(path)).assign("Billing", 0))
    assert content == f"{TEXTS_EACH} of Billing, not Delivery"
    path.write_text("{{ nme }}")
    for wrong, said in ((path, "names 'nme'.*did you mean 'name'"), ("no.jinja", "cannot be read")):
        with pytest.raises(InputError, match=f"teacher.prompt.synthesize .*{said}") as caught:
            make(synthesize=str(wrong))
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no class of the data"):
        make(descriptions={"Biling": "money"})
