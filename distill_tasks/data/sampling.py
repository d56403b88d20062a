"""The rows of train and transfer that the teacher labels, where those are not all of them."""

from __future__ import annotations

from collections.abc import Sequence

from distill_tasks.core.digests import digest_texts
from distill_tasks.core.errors import InputError
from distill_tasks.core.notes import Note, Rank
from distill_tasks.data.carving import stratify
from distill_tasks.data.corpus import LEARNT, Corpus
from distill_tasks.data.settings import SampleConfig


def order_texts(corpus: Corpus, sample: SampleConfig, seed: int) -> list[str]:
    """Return the different texts of train and transfer, in the order in which they are taken.

    It is the order of the hashes of seed and text, so a sample is the beginning of a larger one.
    Unless the sample is `random`, texts with gold come first: gold is scarce, and the controls that
    students are compared with learn from it. Of these the first is one of each class, and each
    further part has every class by its share. Texts without gold are not grouped: a model would
    have to guess their groups.
    """
    texts = list(dict.fromkeys(corpus.training_rows.texts))
    hashes = dict(zip(texts, digest_texts(f"{seed} {text}" for text in texts), strict=True))
    places: dict[str, float] = {}
    if sample.kind != "random" and corpus.splits["train"].has_gold:
        for _, group in stratify(corpus.splits["train"], corpus.classes):
            ordered = sorted(group, key=hashes.__getitem__)
            places |= {text: place / len(group) for place, text in enumerate(ordered)}
    return sorted(texts, key=lambda text: (places.get(text, 1.0), hashes[text]))


def list_asked(corpus: Corpus, sample: Sequence[str] | None) -> list[str]:
    """Return the different texts that the teacher is asked about: all, or a sample and the rest.

    ``sample`` are texts of train and transfer; rows of other splits are asked about in any case.
    """
    if sample is None:
        return corpus.texts
    others = [split.texts for name, split in corpus.splits.items() if name not in LEARNT]
    return list(dict.fromkeys([*sample, *(text for texts in others for text in texts)]))


def keep_sample(corpus: Corpus, sample: Sequence[str] | None) -> Corpus:
    """Return the corpus without the rows of train and transfer that a sample leaves out."""
    return corpus if sample is None else corpus.keep_texts(set(sample), LEARNT)


def check_sample(corpus: Corpus, sample: SampleConfig | None, seed: int) -> list[Note]:
    """Return how much a sample leaves out; raise InputError if nothing of train would be left."""
    if sample is None:
        return []
    order, gold = order_texts(corpus, sample, seed), corpus.splits["train"]
    taken = set(order[: sample.rows])
    if len(taken) == len(order):
        few = f"train and transfer have {len(order):,} different texts"
        return [Note(Rank.FINE, f"data.sample.rows is {sample.rows:,}; {few}: all are labelled")]
    kept = sum(text in taken for text in gold.texts)
    if not kept:
        raise InputError(
            f"data.sample takes {sample.rows:,} of {len(order):,} texts at random, none of them of "
            "train. Raise data.sample.rows, or take kind stratified."
        )
    about = f"data.sample leaves {len(order) - len(taken):,} of {len(order):,} texts of train and"
    notes = [Note(Rank.KNOW, f"{about} transfer out: the teacher does not label them")]
    if gold.has_gold and kept < len(gold):
        lost = f"data.sample leaves out {len(gold) - kept:,} of {len(gold):,} rows with gold"
        advice = "students and their controls do not learn from these; raise data.sample.rows"
        notes.append(Note(Rank.ACT, f"{lost}: {advice}"))
    return notes
