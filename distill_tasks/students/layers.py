"""Student family ``layers``: a copy of some of the teacher's layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from distill_tasks.device import choose_device
from distill_tasks.errors import InputError
from distill_tasks.settings import Spans, StudentSettings
from distill_tasks.students.lesson import Lesson, TeacherModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from distill_tasks.training import Curve


class LayersStudent(StudentSettings):
    """A transformer made of maximally spaced layers of the teacher, ending with its last one."""

    size_field: ClassVar[str] = "layers"
    runtime: ClassVar[Literal["torch", "numpy"]] = "torch"

    family: Literal["layers"] = Field("layers", description="The family of students.")
    layers: Annotated[PositiveInt, Spans()] = Field(
        description="Layers kept; a list spans the grid."
    )
    epochs: Annotated[PositiveInt, Spans()] = Field(
        2, description="Passes over train and transfer; a list spans the grid."
    )
    learning_rate: Annotated[PositiveFloat, Spans()] = Field(
        3e-4, description="Peak learning rate of AdamW, decayed linearly; a list spans the grid."
    )
    batch_rows: Annotated[PositiveInt, Spans()] = Field(
        32, description="Rows in one training step; a list spans the grid."
    )


def choose_layers(kept: int, available: int) -> list[int]:
    """Return the numbers, from 0, of ``kept`` evenly spaced layers that end with the last one.

    What a student starts from matters more than any loss: a single layer copied from the
    teacher's last one beat one copied from its first by 17 points (docs/decisions.md).
    Raises InputError if the teacher has fewer layers.
    """
    if kept > available:
        raise InputError(
            f"A student of {kept} layers was asked for; the teacher has {available}. "
            f"Set students.layers to at most {available}."
        )
    return [round((number + 1) * available / kept) - 1 for number in range(kept)]


def copy_layers(teacher: TeacherModel, kept: int, classes: Sequence[str]) -> PreTrainedModel:
    """Return a sequence classifier with the teacher's embeddings, head and chosen layers.

    A base model that has no head for these classes gets a random one.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from distill_tasks.training import name_classes, without_dropout

    names = name_classes(classes)
    full = AutoModelForSequenceClassification.from_pretrained(
        teacher.model,
        revision=teacher.revision,
        dtype="float32",
        ignore_mismatched_sizes=True,  # a base may bring the head of another task
        **names,
    )
    chosen = choose_layers(kept, full.config.num_hidden_layers)
    stack = _find_layers(full)
    config = AutoConfig.from_pretrained(teacher.model, revision=teacher.revision, **names)
    config.num_hidden_layers = kept
    student: PreTrainedModel = AutoModelForSequenceClassification.from_config(
        without_dropout(config),
        attn_implementation=choose_device().training_attention,
        dtype="float32",
    )
    student.load_state_dict(_renumber(full.state_dict(), stack, chosen))
    return student


def train(config: LayersStudent, lesson: Lesson, folder: Path) -> list[Curve]:
    """Train the student into ``folder`` as a transformers model and return its curve."""
    from transformers import AutoTokenizer, set_seed

    from distill_tasks.students.folder import describe_model
    from distill_tasks.training import Recipe, Rows, train_classifier

    assert lesson.teacher is not None  # `check` refuses the grid otherwise
    set_seed(lesson.seed)
    student = copy_layers(lesson.teacher, config.layers, lesson.classes)
    student.get_input_embeddings().requires_grad_(False)
    recipe = Recipe(
        epochs=config.epochs,
        learning_rate=config.learning_rate,
        batch_rows=config.batch_rows,
        max_length=lesson.teacher.max_length,
        seed=lesson.seed,
        temperature=lesson.temperature,
        alpha=lesson.alpha,
        problem=lesson.problem,
        class_weights=lesson.class_weights,
    )
    curve = train_classifier(
        student,
        AutoTokenizer.from_pretrained(lesson.teacher.model, revision=lesson.teacher.revision),
        Rows(lesson.rows.texts, lesson.rows.gold, lesson.soft_labels.logits),
        Rows(lesson.validation.texts, lesson.validation.gold),
        recipe,
        folder,
    )
    describe_model(folder, "transformers", lesson, max_length=lesson.teacher.max_length)
    return curve


def _find_layers(model: PreTrainedModel) -> str:
    """Return the name of the list of layers inside a model, as ``bert.encoder.layer``."""
    from torch.nn import ModuleList

    depth = model.config.num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, ModuleList) and len(module) == depth:
            return str(name)
    raise InputError(
        f"{type(model).__name__} has no list of {depth} layers to copy from. "
        "Use the families static or bag_of_words with this teacher."
    )


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
