"""The scripted endpoint behaves as the servers do that it stands for."""

import json
import math
import time
from collections import Counter
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import openai
import pytest
from endpoint import ScriptedEndpoint, run_endpoint
from endpoint_model import Flaws
from endpoint_script import Fault, Script, read_ledger

CLASSES = {"A": "billing", "B": "delivery: parcels and couriers", "C": "refund"}
TRUTH = {"billing": 0.6, "delivery": 0.1, "refund": 0.3}


def oracle(_, classes):
    """Return the same probabilities for every text."""
    return [TRUTH[name] for name in classes]


@pytest.fixture
def endpoint():
    with ScriptedEndpoint(oracle) as running:
        yield running


@pytest.fixture
def client(endpoint):
    with openai.OpenAI(base_url=endpoint.url, api_key="key", max_retries=0) as one:
        yield one


def make_request(text="where is it", options=CLASSES, **more):
    listed = "\n".join(f"{code}) {name}" for code, name in options.items())
    asked = f"Example: <text>A) no option</text>\n\n<text>\n{text}\n</text>"
    messages = [{"role": "system", "content": listed}, {"role": "user", "content": asked}]
    return {"model": "oracle-large", "messages": messages, "temperature": 0, "max_tokens": 1} | more


def post(endpoint, **more):
    return httpx.post(f"{endpoint.url}/chat/completions", json=make_request(**more), timeout=1)


def read_shares(completion):
    [first] = completion.choices[0].logprobs.content
    return {one.token: math.exp(one.logprob) for one in first.top_logprobs}


def test_log_probabilities_are_the_oracles_beside_tokens_that_are_no_option(client):
    answer = client.chat.completions.create(**make_request(logprobs=True, top_logprobs=10))
    shares = read_shares(answer)
    assert answer.choices[0].message.content == "A"
    assert shares["A"] == pytest.approx(0.98 * 0.6)
    assert shares["C"] == pytest.approx(0.98 * 0.3)
    assert "The" in shares
    assert sum(shares.values()) == pytest.approx(1)


def test_the_order_of_the_options_matters_only_to_a_biased_model(client, endpoint):
    def ask(codes):
        request = make_request(options={code: CLASSES[code] for code in codes})
        return read_shares(client.chat.completions.create(**request, logprobs=True, top_logprobs=3))

    assert ask("ABC")["C"] == pytest.approx(ask("CBA")["C"])
    endpoint.script.flaws = Flaws(first_option_bonus=1)
    assert ask("ABC")["C"] < ask("CBA")["C"]


def test_votes_are_drawn_from_the_oracle(client):
    answer = client.chat.completions.create(**make_request(n=400) | {"temperature": 1.0})
    votes = Counter(choice.message.content for choice in answer.choices)
    assert votes["A"] / 400 == pytest.approx(0.98 * 0.6, abs=0.1)
    assert votes["B"] / 400 == pytest.approx(0.98 * 0.1, abs=0.06)


@pytest.mark.parametrize("values", [["B", "C"], ["delivery", "refund"]])
def test_a_schema_leaves_only_its_values(client, values):
    schema = {"type": "object", "properties": {"label": {"enum": values}}}
    form = {"type": "json_schema", "json_schema": {"name": "label", "schema": schema}}
    request = make_request(response_format=form, max_tokens=20)
    [choice] = client.chat.completions.create(**request).choices
    assert json.loads(choice.message.content) == {"label": values[1]}
    [choice] = client.chat.completions.create(**request | {"max_tokens": 2}).choices
    assert choice.message.content == '{"label"'
    assert choice.finish_reason == "length"


def test_confidences_are_stated_where_the_system_message_asks_for_them(client):
    request = make_request(max_tokens=20)
    request["messages"][0]["content"] += "\nState your confidence in each."
    stated = client.chat.completions.create(**request).choices[0].message.content
    assert json.loads(stated) == {"A": 0.6, "B": 0.1, "C": 0.3}


@pytest.mark.parametrize(
    ("fault", "status", "charged"),
    [
        (Fault.RATE_LIMITED, 429, False),
        (Fault.SERVER_ERROR, 500, False),
        (Fault.UNAVAILABLE, 503, False),
        (Fault.TRUNCATED, 200, True),
        (Fault.DROPPED, None, True),
        (Fault.SILENT, None, True),
    ],
)
def test_a_fault_happens_once_and_costs_what_the_model_worked(endpoint, fault, status, charged):
    endpoint.script = Script(scripted=[fault], input_price=1e6)
    if status is None:
        with pytest.raises(
            httpx.ReadTimeout if fault is Fault.SILENT else httpx.RemoteProtocolError
        ):
            post(endpoint)
    else:
        answer = post(endpoint)
        assert answer.status_code == status
        if fault is Fault.TRUNCATED:
            with pytest.raises(json.JSONDecodeError):
                answer.json()
    assert not endpoint.ledger.entries[0].answered
    assert (endpoint.ledger.spent > 0) is charged
    assert post(endpoint).json()["choices"]


def test_rates_decide_how_often_a_fault_happens():
    script = Script(rates={"server_error": 0.2, "unavailable": 0.1, "refused": 0.3})
    drawn = Counter(script.draw_fault(number, f"text {number}") for number in range(3000))
    assert drawn[Fault.SERVER_ERROR] / 3000 == pytest.approx(0.2, abs=0.03)
    assert drawn[Fault.UNAVAILABLE] / 3000 == pytest.approx(0.1, abs=0.03)
    assert drawn[Fault.REFUSED] / 3000 == pytest.approx(0.3 * 0.7, abs=0.03)


@pytest.mark.parametrize("as_date", [False, True])
def test_a_limit_says_when_to_come_again(endpoint, as_date):
    endpoint.script = Script(scripted=["rate_limited"], retry_after_s=7, retry_after_date=as_date)
    said = post(endpoint).headers["Retry-After"]
    seconds = parsedate_to_datetime(said).timestamp() - time.time() if as_date else float(said)
    assert 5 < seconds <= 7


def test_off_list_answers_stop_where_a_schema_forbids_them_and_refusals_do_not(client, endpoint):
    endpoint.script.rates = {"off_list": 1.0}
    schema = {"properties": {"label": {"enum": ["A"]}}}
    form = {"type": "json_schema", "json_schema": {"name": "label", "schema": schema}}
    free, bound = make_request(), make_request(response_format=form, max_tokens=20)
    assert client.chat.completions.create(**free).choices[0].message.content == "I ca"
    assert "A" in client.chat.completions.create(**bound).choices[0].message.content
    endpoint.script.rates = {"refused": 1.0}
    assert client.chat.completions.create(**bound).choices[0].message.refusal


@pytest.mark.parametrize("way", ["ignored", "zeros", "empty"])
def test_log_probabilities_may_be_taken_and_not_given(client, endpoint, way):
    endpoint.script.logprobs = way
    answer = client.chat.completions.create(**make_request(logprobs=True, top_logprobs=5))
    given = answer.choices[0].logprobs
    if way == "ignored":
        assert given is None
    elif way == "empty":
        assert given.content == []
    else:
        assert {one.logprob for one in given.content[0].top_logprobs} == {0.0}


def test_a_request_for_too_many_log_probabilities_is_refused_or_cut(client, endpoint):
    endpoint.script.max_top_logprobs = 2
    request = make_request(logprobs=True, top_logprobs=5)
    with pytest.raises(openai.BadRequestError, match="at most 2"):
        client.chat.completions.create(**request)
    endpoint.script.over_cap = "cut"
    assert len(read_shares(client.chat.completions.create(**request))) == 2


@pytest.mark.parametrize(
    ("script", "error", "code"),
    [
        (Script(api_key="another"), openai.AuthenticationError, "invalid_api_key"),
        (Script(model="another"), openai.NotFoundError, "model_not_found"),
        (Script(context_tokens=10), openai.BadRequestError, "context_length_exceeded"),
    ],
)
def test_a_request_that_cannot_be_served_costs_nothing(client, endpoint, script, error, code):
    endpoint.script = script
    script.input_price = 1.0
    with pytest.raises(error) as raised:
        client.chat.completions.create(**make_request())
    assert raised.value.code == code
    assert len(endpoint.ledger) == 1
    assert endpoint.ledger.spent == 0


def test_log_probabilities_of_given_tokens_are_not_cut(client, endpoint):
    endpoint.script = Script(token_ids=True, max_top_logprobs=1)
    root = endpoint.url.removesuffix("/v1")
    ids = [
        httpx.post(f"{root}/tokenize", json={"prompt": code}).json()["tokens"] for code in CLASSES
    ]
    assert all(len(one) == 1 for one in ids)
    more = {"logprob_token_ids": [one for [one] in ids]}
    request = make_request(logprobs=True, extra_body=more)
    assert set(read_shares(client.chat.completions.create(**request))) == set(CLASSES)


def test_the_ledger_adds_up_and_lasts(tmp_path):
    script = Script(input_price=2.0, output_price=8.0)
    for _ in range(2):
        with ScriptedEndpoint(oracle, script, ledger=tmp_path / "ledger.jsonl") as endpoint:
            usage = post(endpoint).json()["usage"]
    kept = read_ledger(tmp_path / "ledger.jsonl")
    once = (usage["prompt_tokens"] * 2 + usage["completion_tokens"] * 8) / 1e6
    assert kept.spent == pytest.approx(2 * once) == endpoint.ledger.spent
    assert list(kept.find_asked_twice().values()) == [2]


def test_a_batch_is_answered_after_some_polls_at_half_the_price(client, endpoint):
    endpoint.script = Script(input_price=1.0, batch_polls=1, scripted=["none", "server_error"])
    lines = [
        {"custom_id": str(number), "url": "/v1/chat/completions", "body": make_request(f"{number}")}
        for number in range(3)
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    file = client.files.create(file=("batch.jsonl", content), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    assert client.batches.retrieve(batch.id).status == "in_progress"
    batch = client.batches.retrieve(batch.id)
    assert batch.status == "completed"
    answers = client.files.content(batch.output_file_id).text.splitlines()
    assert [json.loads(line)["custom_id"] for line in answers] == ["0", "2"]
    [failed] = client.files.content(batch.error_file_id).text.splitlines()
    assert json.loads(failed)["response"]["status_code"] == 500
    tokens = json.loads(answers[0])["response"]["body"]["usage"]["prompt_tokens"]
    assert endpoint.ledger.spent == pytest.approx(2 * tokens / 1e6 / 2)


def test_it_runs_in_a_process_of_its_own_and_changes_its_model_there(tmp_path):
    ledger = tmp_path / "ledger.jsonl"
    with run_endpoint(f"{Path(__file__)}:oracle", "--ledger", str(ledger)) as url:
        root = url.removesuffix("/v1")
        for model in ("first", "second"):
            httpx.post(f"{root}/script", json={"served_model": model}).raise_for_status()
            answer = httpx.post(f"{url}/chat/completions", json=make_request()).json()
            assert answer["model"] == model
    assert len(read_ledger(ledger)) == 2
