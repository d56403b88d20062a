import html
import io
import re
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from distill_tasks.core.markup import (
    as_cell,
    as_label,
    as_markdown,
    as_terminal,
    as_visible,
    from_cell,
)
from distill_tasks.core.terminal import Terminal

MARKUP = st.text(st.sampled_from("ab1 .:@_*`~[]()<>!#|\\-+=&/\n\t"), max_size=20)
TEXTS = st.one_of(MARKUP, st.text(max_size=30), st.text(st.characters(categories=["Zs", "Cc"])))
"""What users may write: markup above all, and anything else."""

NAMES = {
    "a rich tag": "refund [/complaint]",
    "a rich style": "[bold red]late[/]",
    "a rich emoji": ":smile:",
    "a link": "[click](http://evil.example)",
    "a link with a space": "[click] (http://evil.example)",
    "an image": "![x](http://evil.example/x.png)",
    "a bare address": "http://evil.example or www.evil.example",
    "a mail address and a mention": "a@evil.example @somebody",
    "a tag": "<img src=x onerror=alert(1)>",
    "an entity": "AT&amp;T &#60;b&#62;",
    "emphasis": "*a* _b_ **c** __d__ ~~e~~ `f`",
    "a cell": "a | b",
    "a heading": "# a",
    "a list": "- a",
    "a numbered list": "1. a",
    "a rule": "- - -",
    "a quote": "> a",
    "a definition": "[a]: http://evil.example",
    "two lines": "a\n\n# b",
    "blanks at both ends": "  a  ",
    "a clear screen": "\x1b[2J\x9b31mred\r",
}


class Shown(HTMLParser):
    """The text that a reader of a page sees, and the tags around it."""

    def __init__(self, page):
        super().__init__()
        self.text, self.tags = "", []
        self.feed(page)

    def handle_starttag(self, tag, _):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def render(markdown):
    """Return what a reader sees of markdown."""
    return Shown(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown))


PLACES = {
    "{}": ["p"],
    "- {}": ["ul", "li"],
    "a\n\n## b {} c": ["p", "h2"],
    "**{}**: c": ["p", "strong"],
    "| a |\n| --- |\n| {} |": ["table", "thead", "tr", "th", "tbody", "tr", "td"],
}


@pytest.mark.parametrize("place", PLACES)
@given(text=TEXTS.filter(bool))
@example(text="\\|")
@example(text="--")
@example(text="a__b_ _c__d")
def test_any_text_comes_back_as_itself_wherever_markdown_shows_it(place, text):
    page, plain = render(place.format(as_markdown(text))), render(place.format("TEXT"))
    assert page.tags == plain.tags == PLACES[place]
    assert page.text == plain.text.replace("TEXT", as_visible(text))


@given(text=TEXTS)
def test_markdown_holds_no_bare_address_mention_or_emoji(text):
    """Renderers that link what looks like an address have nothing to link."""
    said = as_markdown(text)
    assert not re.search(r"://|www\.|@|:[\w+-]+:", said, re.IGNORECASE)
    assert "<" not in said


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_names_that_want_to_be_more_are_shown_as_they_are(name):
    assert render(f"a {as_markdown(name)} b").text.strip() == f"a {as_visible(name)} b"
    assert html.unescape(as_label(name)) == as_visible(name)
    assert show(name) == f"{as_terminal(name)}\n"


@pytest.mark.parametrize(
    "text", ["layers-2-max_disk_mb", "+2.31 [+1.55, +3.06]", "-0.5 points", "a: b, c & d (0.5)"]
)
def test_what_is_no_markup_stays_readable(text):
    assert as_markdown(text).replace("\\[", "[") == text


@given(text=TEXTS)
def test_any_label_of_a_picture_comes_back_as_itself(text):
    assert "<" not in as_label(text)
    assert html.unescape(as_label(text)) == as_visible(text)


def show(text):
    stream = io.StringIO()
    Terminal(file=stream, width=10_000, soft_wrap=True).print(text)
    return stream.getvalue()


@given(text=TEXTS.filter(lambda text: "\t" not in text))
def test_any_text_comes_back_as_itself_on_a_terminal(text):
    assert show(text) == f"{as_terminal(text)}\n"


@given(text=TEXTS)
def test_a_terminal_obeys_no_character_of_a_text(text):
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", show(text))


def test_a_text_without_control_characters_is_as_it_was():
    text = "".join(chr(code) for code in range(0x20, 0x3000) if not 0x7F <= code < 0xA0)
    assert as_visible(text) == as_terminal(text) == text


@given(text=TEXTS)
@example(text="'=1+1")
@example(text="''@SUM(A1)")
@example(text=" =cmd|' /C calc'!A0")
def test_a_spreadsheet_runs_no_text_and_gives_every_one_back(text):
    cell = as_cell(text)
    assert cell.lstrip()[:1] not in {*"=+-@"}
    assert from_cell(cell) == text
    if text[:1].isalnum():
        assert cell == text
