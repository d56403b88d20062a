"""One chat completion of the scripted endpoint, in OpenAI's format."""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from endpoint_model import (
    Model,
    Prompt,
    Reply,
    answer_with_code,
    answer_with_confidences,
    answer_with_texts,
    answer_within,
    judge,
    rank,
    read_constraint,
    spread_tokens,
)
from endpoint_script import Fault, Script

OFF_LIST_ANSWER = "I cannot help with that, but here is a thought about your message"
REFUSAL = "I'm sorry, but I can't assist with that request."
TOKEN = re.compile(r" ?\w{1,3}|.", re.DOTALL)


UNSUPPORTED = {"refused": 400, "fails": 500}
"""HTTP statuses by which something is said not to be supported."""


class RejectedError(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        kinds = {401: "authentication_error", 429: "rate_limit_error"}
        kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
        error = {"message": message, "type": kind, "param": None, "code": code}
        self.body: dict[str, Any] = {"error": error}


def check(body: dict[str, Any], prompt_tokens: int, script: Script) -> None:
    """Raise RejectedError for a request that the endpoint does not take."""
    if body.get("model") != script.model:
        message = f"The model `{body.get('model')}` does not exist or you do not have access to it."
        raise RejectedError(404, message, "model_not_found")
    wanted = prompt_tokens + read_max_tokens(body)
    if wanted > script.context_tokens:
        message = (
            f"This model's maximum context length is {script.context_tokens} tokens. However, you "
            f"requested {wanted} tokens. Please reduce the length of the messages or completion."
        )
        raise RejectedError(400, message, "context_length_exceeded")
    if body.get("logprobs") and script.logprobs in UNSUPPORTED:
        status = UNSUPPORTED[script.logprobs]
        raise RejectedError(status, "logprobs is not supported with this model.")
    if (body.get("top_logprobs") or 0) > script.max_top_logprobs and script.over_cap == "refused":
        message = f"Invalid value for 'top_logprobs': must be at most {script.max_top_logprobs}."
        raise RejectedError(400, message, "integer_above_max_value")
    if (body.get("n") or 1) > script.max_n:
        raise RejectedError(400, f"Invalid value for 'n': must be at most {script.max_n}.")
    if is_held(body) and script.response_format in UNSUPPORTED:
        status = UNSUPPORTED[script.response_format]
        raise RejectedError(status, "'response_format' of this type is not supported.")


def is_held(body: dict[str, Any]) -> bool:
    """Return whether the answer is to be held to a grammar."""
    schema = (body.get("response_format") or {}).get("json_schema")
    return bool(schema or read_constraint(body))


def read_max_tokens(body: dict[str, Any]) -> int:
    """Return the most tokens that may be generated."""
    return int(body.get("max_completion_tokens") or body.get("max_tokens") or 256)


def complete(
    body: dict[str, Any], prompt: Prompt, script: Script, model: Model, fault: Fault, number: int
) -> dict[str, Any]:
    """Return the completion that answers a request, with its usage."""
    draw = random.Random(f"{script.seed}-answer-{number}")  # noqa: S311
    times = 1 if script.ignores_n else int(body.get("n") or 1)
    most = round(read_max_tokens(body) * script.characters_per_token)
    whole = [reply(body, prompt, script, model, fault, draw) for _ in range(times)]
    replies = [replace(one, content=one.content[:most]) for one in whole]
    prompt_tokens = count_prompt(body, script)
    completion_tokens = sum(script.count_tokens(one.refusal or one.content) for one in replies)
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 1_760_000_000 + number,
        "model": script.served_model or body["model"],
        "system_fingerprint": script.system_fingerprint,
        "choices": [
            show_choice(place, one, body, script)
            | {"finish_reason": "length" if len(said.content) > most else "stop"}
            for place, (one, said) in enumerate(zip(replies, whole, strict=True))
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


def count_prompt(body: dict[str, Any], script: Script) -> int:
    """Return the tokens of the messages."""
    contents = [str(message.get("content") or "") for message in body["messages"]]
    return script.count_tokens("".join(contents)) + 4 * len(contents)


def reply(
    body: dict[str, Any],
    prompt: Prompt,
    script: Script,
    model: Model,
    fault: Fault,
    draw: random.Random,
) -> Reply:
    """Return what the model says."""
    constraint = read_constraint(body) if script.response_format == "honoured" else None
    if fault is Fault.REFUSED:
        return Reply("", refusal=REFUSAL)
    if prompt.texts and model.author is not None and fault is not Fault.OFF_LIST:
        held = is_held(body) and script.response_format == "honoured"
        return answer_with_texts(model.author(prompt.about, prompt.texts, draw), held)
    if not prompt.options or (fault is Fault.OFF_LIST and not constraint):
        return Reply(OFF_LIST_ANSWER, (("I", -0.1),))
    likely = judge(model.oracle, prompt, script.flaws, draw)
    if constraint:
        return answer_within(constraint, prompt, likely)
    if prompt.verbalised:
        return answer_with_confidences(likely)
    temperature = body.get("temperature")
    tokens = spread_tokens(likely, script.flaws)
    return answer_with_code(tokens, 1.0 if temperature is None else float(temperature), draw)


def show_choice(place: int, one: Reply, body: dict[str, Any], script: Script) -> dict[str, Any]:
    """Return a reply as a choice of a completion."""
    return {
        "index": place,
        "message": {
            "role": "assistant",
            "content": None if one.refusal else one.content,
            "refusal": one.refusal,
        },
        "logprobs": show_logprobs(one, body, script),
    }


def show_logprobs(one: Reply, body: dict[str, Any], script: Script) -> dict[str, Any] | None:
    """Return the log-probabilities that a request asked for, as the script gives them."""
    if not body.get("logprobs") or script.logprobs == "ignored" or one.refusal:
        return None
    if script.logprobs == "empty":
        return {"content": [], "refusal": None}
    if script.digits_apart:
        one = replace(one, likeliest=part_digits(one.likeliest))
    scores = dict(one.likeliest)
    said = next((token for token in scores if one.content.startswith(token)), one.content[:1])
    listed = list(one.likeliest[: min(body.get("top_logprobs") or 0, script.max_top_logprobs)])
    if script.token_ids and body.get("logprob_token_ids"):
        wanted = [read_token(number) for number in body["logprob_token_ids"]]
        listed = [(token, scores.get(token, -25.0)) for token in wanted]
    first = show_token(said, scores.get(said, 0.0), script)
    return {
        "content": [first | {"top_logprobs": [show_token(*pair, script) for pair in listed]}],
        "refusal": None,
    }


def part_digits(likeliest: Sequence[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    """Return the likeliest first tokens where each digit is a token, likeliest first."""
    shares: Counter[str] = Counter()
    for token, score in likeliest:
        shares[token[0] if token.isdigit() else token] += math.exp(score)
    return rank(shares)


def show_token(token: str, score: float, script: Script) -> dict[str, Any]:
    """Return a token with its log-probability, and its bytes."""
    zeros = script.logprobs == "zeros"
    return {"token": token, "logprob": 0.0 if zeros else score, "bytes": list(token.encode())}


def tokenize(text: str, script: Script) -> dict[str, Any]:
    """Return the tokens of a text as vLLM's /tokenize does it; an id is its token's bytes."""
    tokens = TOKEN.findall(text)
    return {
        "count": len(tokens),
        "max_model_len": script.context_tokens,
        "tokens": [int.from_bytes(token.encode(), "big") for token in tokens],
        "token_strs": tokens,
    }


def read_token(number: int) -> str:
    """Return the token of an id."""
    return number.to_bytes((number.bit_length() + 7) // 8, "big").decode()


def halve(completion: dict[str, Any]) -> bytes:
    """Return the first half of a completion's JSON."""
    whole = json.dumps(completion).encode()
    return whole[: len(whole) // 2]
