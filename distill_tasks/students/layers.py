"""Student family ``layers``: a copy of some of the teacher's layers, optionally narrower."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt

from distill_tasks.core.errors import InputError, say_reason, shortlist
from distill_tasks.core.settings import Spans
from distill_tasks.students.base import TrainingSet
from distill_tasks.students.narrow import check_sizes, narrow, read_probe
from distill_tasks.students.transformer import TransformerSettings, Untrained
from distill_tasks.students.vocabulary import (
    check_pieces,
    find_tokens,
    keep_embeddings,
    keep_pieces,
)
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.device import choose_device
from distill_tasks.training.model_settings import class_settings, without_dropout

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Numbers = Annotated[str, Field(pattern=r"^[0-9]+(-[0-9]+)*$", coerce_numbers_to_str=True)]
"""Layers by number, counted from 1, such as ``2-4-6``."""


class LayersStudent(TransformerSettings):
    """A transformer made of some layers of the teacher, as wide as the teacher or narrower."""

    size_field: ClassVar[str] = "layers"

    family: Literal["layers"] = Field("layers", description="The family of students.")
    layers: Annotated[PositiveInt, Spans()] = Field(
        description="Layers kept; a list spans the grid."
    )
    take: Annotated[Literal["spaced", "first", "last"] | Numbers, Spans()] = Field(
        "spaced",
        description="Which layers of the teacher: evenly `spaced` ones that end with the last, the "
        "`first`, the `last`, or their numbers from 1, as 2-4-6; a list spans the grid.",
    )
    width: Annotated[PositiveInt | None, Spans()] = Field(
        None,
        description="Width of the hidden states, a multiple of the width of the teacher's "
        "attention heads, by PCA; the teacher's when absent; a list spans the grid.",
    )
    feed_forward: Annotated[PositiveInt | None, Spans()] = Field(
        None,
        description="Units inside each feed-forward part, the strongest of the teacher's; all of "
        "them when absent; a list spans the grid.",
    )
    vocabulary: Annotated[Literal["teacher", "corpus"], Spans()] = Field(
        "teacher",
        description="Tokens known: all of the teacher's, or those of train and transfer with "
        "special tokens and single characters; a list spans the grid.",
    )

    @property
    def needs_teacher_weights(self) -> bool:
        """Whether it starts from the teacher's own weights: it is made of them."""
        return True

    @property
    def reads_as_teacher(self) -> bool:
        """Whether the teacher's vocabulary was kept."""
        return self.vocabulary == "teacher"

    @property
    def grows_with_words(self) -> bool:
        """Whether its vocabulary is that of its training set."""
        return self.vocabulary == "corpus"

    @property
    def usual_learning_rate(self) -> float:
        """The peak learning rate if the user sets none."""
        return choose_learning_rate(self.layers)

    @classmethod
    def check_teacher(
        cls,
        students: Sequence[Self],
        teacher: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        terms: Collection[str],
    ) -> None:
        """Raise InputError unless students can be cut out of a teacher; tries the shallowest."""
        for student in students:
            choose_layers(student.layers, count_layers(teacher), student.take)
            check_sizes(teacher.config, student.width, student.feed_forward)
        if any(student.vocabulary == "corpus" for student in students):
            check_pieces(tokenizer)
        _check_copy(min(students, key=lambda student: student.layers), teacher, tokenizer)
        if "relations" in terms:
            from distill_tasks.training.hidden_states import check_relations

            same_tokens = (student for student in students if student.reads_as_teacher)
            check_relations((student.width for student in same_tokens if student.width), teacher)

    def begin(self, training_set: TrainingSet) -> Untrained:
        """Return the chosen layers and the tokenizer, narrower and with fewer tokens if set."""
        teacher, texts = training_set.teacher, training_set.rows.texts
        assert teacher is not None  # `check` refuses the grid otherwise
        tokenizer = teacher.open_tokenizer()
        kept = None
        if self.vocabulary == "corpus":
            kept = find_tokens(tokenizer, texts)
            tokenizer = keep_pieces(tokenizer, kept)

        def make() -> PreTrainedModel:
            student = copy_layers(teacher, self.layers, training_set.classes, self.take)
            if self.width or self.feed_forward:
                probe = read_probe(teacher, texts)
                student = narrow(student, self.width, self.feed_forward, probe)
            if kept is not None:
                keep_embeddings(student, kept)
            return student

        return Untrained(make, tokenizer, teacher.max_length)


def choose_learning_rate(layers: int) -> float:
    """Return the usual peak learning rate, which is higher for fewer layers.

    On 1,000 rows one layer learnt best at 1e-3, two at 6e-4, three at 3e-4 (docs/decisions.md).
    """
    return 1e-3 / layers


def choose_layers(kept: int, available: int, take: str = "spaced") -> list[int]:
    """Return the numbers, from 0, of ``kept`` layers; evenly spaced ones end with the last.

    What a student starts from matters more than any loss: a single layer copied from the
    teacher's last one beat one copied from its first by 17 points (docs/decisions.md).
    Raises InputError if the teacher lacks these layers, or ``take`` names another number of them.
    """
    if kept > available:
        raise InputError(
            f"A student of {kept} layers was asked for; the teacher has {available}. "
            f"Set students.layers to at most {available}."
        )
    match take:
        case "spaced":
            return [round((number + 1) * available / kept) - 1 for number in range(kept)]
        case "first":
            return list(range(kept))
        case "last":
            return list(range(available - kept, available))
    numbers = [int(number) for number in take.split("-")]
    rising = numbers == sorted(set(numbers))
    if not rising or numbers[0] < 1 or numbers[-1] > available or len(numbers) != kept:
        raise InputError(
            f"students.take is {take} for a student of {kept} layers of a teacher with "
            f"{available}. Give {kept} different numbers from 1 to {available} in rising order."
        )
    return [number - 1 for number in numbers]


def count_layers(model: PreTrainedModel) -> int:
    """Return the number of transformer layers; raise InputError if the configuration has none."""
    depth: int | None = getattr(model.config, "num_hidden_layers", None)
    if depth is None:
        raise InputError(
            f"A {type(model).__name__} has no number of layers in its configuration. "
            "Use a transformer encoder."
        )
    return depth


def _check_copy(
    student: LayersStudent, teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Raise InputError unless the layers of a student can be cut out and answer."""
    import torch

    try:
        copied = take_layers(teacher, teacher.config, student.layers, student.take)
        with torch.inference_mode():
            copied.eval()(**tokenizer("a", return_tensors="pt"))
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001  # other architectures fail with any exception
        raise InputError(
            f"{student.layers} layers of {type(teacher).__name__} cannot be copied: "
            f"{say_reason(error)}. Use the families static, bag_of_words or pretrained."
        ) from None


def copy_layers(
    teacher: Checkpoint, kept: int, classes: Sequence[str], take: str = "spaced"
) -> PreTrainedModel:
    """Return a sequence classifier with the teacher's embeddings, head and chosen layers.

    A base model that has no head for these classes gets a random one.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    origin = {"revision": teacher.revision, **class_settings(classes)}
    full = AutoModelForSequenceClassification.from_pretrained(
        teacher.model,
        trust_remote_code=False,
        dtype="float32",
        ignore_mismatched_sizes=True,  # a base may bring the head of another task
        **origin,
    )
    config = AutoConfig.from_pretrained(teacher.model, trust_remote_code=False, **origin)
    return take_layers(full, config, kept, take)


def take_layers(
    full: PreTrainedModel, config: PretrainedConfig, kept: int, take: str = "spaced"
) -> PreTrainedModel:
    """Return a model of this configuration with the chosen layers of a full model.

    If all layers share their weights, as in ALBERT, the copy applies the same weights fewer times.
    Weights that the copy's first layer does not have, such as ModernBERT's norm before attention,
    are left out. Raises InputError if a weight of the copy would start at random.
    """
    from transformers import AutoModelForSequenceClassification
    from transformers.initialization import no_init_weights

    from distill_tasks.training.first_token import find_layers

    chosen = choose_layers(kept, count_layers(full), take)
    with no_init_weights():  # the teacher's follow at once
        student: PreTrainedModel = AutoModelForSequenceClassification.from_config(
            without_dropout(_choose_settings(config, chosen)),
            attn_implementation=choose_device().training_attention,
            dtype="float32",
            trust_remote_code=False,
        )
    state = full.state_dict()
    if state.keys() != student.state_dict().keys():
        state = _renumber(state, find_layers(full), chosen)
    absent = student.load_state_dict(state, strict=False).missing_keys
    if absent:
        raise InputError(
            f"A copy of {kept} layers of {type(full).__name__} would lack {shortlist(absent, 3)}. "
            "Use the families static or bag_of_words with this teacher."
        )
    return student


def _choose_settings(config: PretrainedConfig, chosen: list[int]) -> PretrainedConfig:
    """Return the configuration of some layers, with the per-layer settings of those layers."""
    depth, fewer = config.num_hidden_layers, copy.deepcopy(config)
    for name, value in config.to_dict().items():
        if isinstance(value, list) and len(value) == depth:
            setattr(fewer, name, [value[number] for number in chosen])
    fewer.num_hidden_layers = len(chosen)
    return fewer


def _renumber(state: dict[str, Any], stack: str, chosen: list[int]) -> dict[str, Any]:
    """Return the weights with the chosen layers renumbered and the others left out."""
    kept = {}
    for name, value in state.items():
        if not name.startswith(f"{stack}."):
            kept[name] = value
            continue
        number, rest = name.removeprefix(f"{stack}.").split(".", 1)
        if int(number) in chosen:
            kept[f"{stack}.{chosen.index(int(number))}.{rest}"] = value
    return kept
