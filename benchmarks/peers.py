"""The peers of `grid_against_recipe`: how people distil a classifier without this library.

Both have the teacher in memory and ask it in every step, in float32, with the dropout of the
pretrained checkpoint, and batches of rows in random order, padded to the longest of them.
TextBrewer comes from requirements-bench.txt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import ModuleList, functional
from torch.utils.data import DataLoader
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    get_linear_schedule_with_warmup,
    set_seed,
)

from distill_tasks.data.corpus import Split
from distill_tasks.students.layers import choose_layers, choose_learning_rate


@dataclass(frozen=True)
class Task:
    """What a peer is asked for: a student of some depth that learnt so many steps."""

    rows: Split
    """Every row has gold."""
    teacher: Path
    """A fine-tuned sequence classifier."""
    base: Path
    """What it was fine-tuned from; this library's teachers no longer have its dropout."""
    max_length: int
    layers: int
    epochs: int
    batch_rows: int
    seed: int


Peer = Callable[[Task, Path], PreTrainedModel]
"""Trains a student, keeps its files in a folder and returns it."""


@dataclass(frozen=True)
class Hyperparameters:
    """What the recipe leaves to its user."""

    learning_rate: float | None
    """None is this library's, which follows from the number of layers."""
    temperature: float
    alpha: float
    warmup: float = 0.0
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = 0.0
    spaced: bool = False
    """Whether students are spaced layers that end with the last, or simply the first ones."""


AS_DISTILLED = Hyperparameters(learning_rate=5e-5, temperature=2.0, alpha=0.5)
"""The Trainer's defaults, and the temperature and α of the usual tutorials."""
AS_OURS = Hyperparameters(
    learning_rate=None,
    temperature=2.0,
    alpha=0.9,
    warmup=0.1,
    weight_decay=0.01,
    spaced=True,
)
"""This library's own choices, which made its students better."""


def distil_in_trainer(task: Task, folder: Path, choices: Hyperparameters) -> PreTrainedModel:
    """Train a student in a Trainer whose loss asks the teacher in every step."""
    set_seed(task.seed)
    teacher = AutoModelForSequenceClassification.from_pretrained(
        task.teacher, trust_remote_code=False
    )
    depth = teacher.config.num_hidden_layers
    chosen = choose_layers(task.layers, depth) if choices.spaced else range(task.layers)
    student = _copy_layers(task, chosen)
    trainer = _RecipeTrainer(
        teacher,
        choices,
        model=student,
        args=TrainingArguments(
            output_dir=str(folder / "checkpoints"),
            num_train_epochs=task.epochs,
            per_device_train_batch_size=task.batch_rows,
            learning_rate=choices.learning_rate or choose_learning_rate(task.layers),
            warmup_steps=choices.warmup,
            weight_decay=choices.weight_decay,
            report_to=[],
            disable_tqdm=True,
            seed=task.seed,
        ),
        train_dataset=_tokenize(task),
        data_collator=DataCollatorWithPadding(
            AutoTokenizer.from_pretrained(task.teacher, trust_remote_code=False)
        ),
    )
    trainer.remove_callback(PrinterCallback)  # standard output is the benchmark's
    trainer.train()
    trainer.save_model(str(folder))
    return student


class _RecipeTrainer(Trainer):
    """Lowers α·T²·KL(teacher‖student) + (1−α)·CE, as Hinton et al. 2015, section 2."""

    def __init__(
        self, teacher: PreTrainedModel, choices: Hyperparameters, **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        self.teacher = teacher.eval().to(self.args.device)
        self.choices = choices

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,  # noqa: ARG002  # the Trainer's signature
    ) -> Any:
        outputs = model(**inputs)
        with torch.no_grad():
            teacher = self.teacher(**inputs).logits
        temperature, alpha = self.choices.temperature, self.choices.alpha
        soft = functional.kl_div(
            functional.log_softmax(outputs.logits / temperature, dim=-1),
            functional.softmax(teacher / temperature, dim=-1),
            reduction="batchmean",
        )
        loss = alpha * temperature**2 * soft + (1 - alpha) * outputs.loss
        return (loss, outputs) if return_outputs else loss


def distil_with_textbrewer(task: Task, folder: Path) -> PreTrainedModel:
    """Train a student with TextBrewer's GeneralDistiller.

    Its default loss (cross-entropy at temperature 4) beside the gold labels, and no intermediate
    matches, which would take time; AdamW with linear warm-up as in its examples.
    """
    from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig

    set_seed(task.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    teacher = AutoModelForSequenceClassification.from_pretrained(
        task.teacher, trust_remote_code=False
    ).to(device)
    student = _copy_layers(task, range(task.layers)).to(device)
    batches = _make_batches(task)
    steps = len(batches) * task.epochs
    distiller = GeneralDistiller(
        train_config=TrainingConfig(output_dir=str(folder), device=device),
        distill_config=DistillationConfig(hard_label_weight=1),
        model_T=teacher,
        model_S=student,
        adaptor_T=_adapt,
        adaptor_S=_adapt,
    )
    with distiller:
        distiller.train(
            torch.optim.AdamW(student.parameters(), lr=3e-4),
            batches,
            num_epochs=task.epochs,
            scheduler_class=get_linear_schedule_with_warmup,
            scheduler_args={"num_warmup_steps": steps // 10, "num_training_steps": steps},
        )
    return student


def _adapt(_: dict[str, Tensor], outputs: Any) -> dict[str, Tensor]:
    """Return a model's outputs under the names that TextBrewer knows."""
    return {"logits": outputs.logits, "losses": outputs.loss}


def _make_batches(task: Task) -> DataLoader[Any]:
    collate = DataCollatorWithPadding(
        AutoTokenizer.from_pretrained(task.teacher, trust_remote_code=False)
    )
    return DataLoader(
        _tokenize(task).remove_columns("text"),
        batch_size=task.batch_rows,
        shuffle=True,
        collate_fn=lambda rows: dict(collate(rows)),  # TextBrewer wants a real dict
    )


def _tokenize(task: Task) -> Dataset:
    tokenizer = AutoTokenizer.from_pretrained(task.teacher, trust_remote_code=False)
    rows = Dataset.from_dict({"text": list(task.rows.texts), "label": task.rows.gold.tolist()})
    return rows.map(
        lambda batch: tokenizer(batch["text"], truncation=True, max_length=task.max_length),
        batched=True,
    )


def _copy_layers(task: Task, chosen: Sequence[int]) -> PreTrainedModel:
    """Return the teacher with the chosen layers only, and the dropout of its base."""
    base = AutoConfig.from_pretrained(task.base, trust_remote_code=False)
    student: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
        task.teacher,
        hidden_dropout_prob=base.hidden_dropout_prob,
        attention_probs_dropout_prob=base.attention_probs_dropout_prob,
        trust_remote_code=False,
    )
    encoder = student.base_model.encoder
    encoder.layer = ModuleList(encoder.layer[number] for number in chosen)
    student.config.num_hidden_layers = len(chosen)
    return student


PEERS: dict[str, Peer] = {
    "recipe": partial(distil_in_trainer, choices=AS_DISTILLED),
    "recipe, our choices": partial(distil_in_trainer, choices=AS_OURS),
    "TextBrewer": distil_with_textbrewer,
}
