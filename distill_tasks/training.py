"""The training loop of transformer teachers and students: `transformers.Trainer`, kept quick."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    EarlyStoppingCallback,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from distill_tasks.corpus import NO_LABEL
from distill_tasks.device import Device, choose_device
from distill_tasks.losses import check_finite, distillation_loss, gold_loss
from distill_tasks.metrics import F1, Accuracy
from distill_tasks.problem import Problem
from distill_tasks.progress import Progress

Curve = dict[str, float]
"""One epoch of a training curve: epoch, step, and metrics by name, as ``validation/loss``."""


@dataclass(frozen=True)
class Rows:
    """Rows to learn from: texts, gold labels (-1 where absent), teacher logits (rows, classes)."""

    texts: Sequence[str]
    labels: NDArray[np.int64]
    teacher_logits: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Recipe:
    """The settings of one training; temperature and alpha matter where teacher logits are given."""

    epochs: int
    learning_rate: float
    batch_rows: int
    max_length: int
    seed: int
    temperature: float = 1.0
    alpha: float = 0.0
    problem: Problem = "single_label"
    class_weights: NDArray[np.float32] | None = None
    patience_epochs: int | None = None
    """Stop after so many epochs without a better validation loss, and keep the best epoch."""


def name_classes(classes: Sequence[str]) -> dict[str, Any]:
    """Return the keyword arguments that give a model its class names."""
    return {
        "num_labels": len(classes),
        "id2label": dict(enumerate(classes)),
        "label2id": {name: number for number, name in enumerate(classes)},
    }


def without_dropout(config: PretrainedConfig) -> PretrainedConfig:
    """Return the configuration with every dropout rate at zero.

    Dropout's random numbers took 30 % of a training step on CPU and cost accuracy
    (docs/decisions.md).
    """
    for key, value in config.to_dict().items():
        if "drop" in key and isinstance(value, float):
            setattr(config, key, 0.0)
    return config


def train_classifier(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    validation: Rows,
    recipe: Recipe,
    folder: Path,
) -> list[Curve]:
    """Train a sequence classifier into ``folder`` and return one curve point for each epoch.

    A checkpoint found in the folder is continued, so a killed training loses at most one epoch.
    """
    checkpoints = folder / "checkpoints"
    device = choose_device()
    validated = bool((validation.labels != NO_LABEL).all())
    trainer = _DistillationTrainer(
        recipe,
        model=model,
        args=_arguments(recipe, device, checkpoints, validated),
        train_dataset=tokenize(tokenizer, rows, recipe.max_length),
        eval_dataset=tokenize(tokenizer, validation, recipe.max_length),
        data_collator=_Collator(tokenizer),
        compute_metrics=_score_with(recipe.problem),
        callbacks=_callbacks(recipe),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=_last_whole(checkpoints))
    model.float().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return _curve(trainer.state.log_history)


def tokenize(tokenizer: PreTrainedTokenizerBase, rows: Rows, max_length: int) -> Dataset:
    """Return rows as token ids with their labels and teacher logits as columns."""
    encoded = tokenizer(list(rows.texts), truncation=True, max_length=max_length)
    columns: dict[str, Any] = {**encoded, "labels": list(rows.labels)}
    if rows.teacher_logits is not None:
        columns["teacher_logits"] = list(rows.teacher_logits)
    return Dataset.from_dict(columns)


class _DistillationTrainer(Trainer):
    """A Trainer whose teacher is a column of the data set."""

    def __init__(self, recipe: Recipe, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.recipe = recipe
        self.model_accepts_loss_kwargs = False

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the loss of a batch: distillation with teacher logits, cross-entropy without."""
        teacher = inputs.pop("teacher_logits", None)
        labels = inputs["labels"]
        outputs = model(**{key: value for key, value in inputs.items() if key != "labels"})
        logits = outputs.logits.float()
        recipe, class_weights = self.recipe, None
        if recipe.class_weights is not None:
            class_weights = torch.from_numpy(recipe.class_weights).to(logits.device)
        if teacher is None:
            loss = gold_loss(logits, labels, class_weights).mean()
        else:
            loss = distillation_loss(
                logits, teacher, labels, recipe.temperature, recipe.alpha, class_weights
            )
        if model.training:
            check_finite(loss, self.state.global_step + 1, recipe.learning_rate)
        return (loss, {"logits": logits}) if return_outputs else loss


class _Collator:
    """Pads token ids to the longest row of a batch and stacks the other columns."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        extra = {
            key: torch.from_numpy(np.array([row.pop(key) for row in rows]))
            for key in ("labels", "teacher_logits")
            if key in rows[0]
        }
        if "teacher_logits" in extra:
            extra["teacher_logits"] = extra["teacher_logits"].float()
        return {**self.tokenizer.pad(rows, return_tensors="pt"), **extra}


class _ShowProgress(TrainerCallback):
    """Reports steps to the run's one progress display."""

    def __init__(self, name: str) -> None:
        self.progress = Progress(name, "steps")

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress.start(state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress.reach(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.progress.stop()


def _arguments(
    recipe: Recipe, device: Device, checkpoints: Path, validated: bool
) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        warmup_steps=0.1,
        lr_scheduler_type="linear",
        weight_decay=0.01,
        per_device_train_batch_size=recipe.batch_rows,
        per_device_eval_batch_size=32,
        train_sampling_strategy="group_by_length",
        bf16=device.bf16,
        use_cpu=device.kind == "cpu",
        dataloader_pin_memory=device.kind == "cuda",
        optim="adamw_torch_fused",
        eval_strategy="epoch" if validated else "no",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=recipe.patience_epochs is not None,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        logging_strategy="epoch",
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=[],
        disable_tqdm=True,
        seed=recipe.seed,
    )


def _callbacks(recipe: Recipe) -> list[TrainerCallback]:
    callbacks: list[TrainerCallback] = [_ShowProgress("training")]
    if recipe.patience_epochs is not None:
        callbacks.append(EarlyStoppingCallback(recipe.patience_epochs))
    return callbacks


def _last_whole(checkpoints: Path) -> str | None:
    """Return the newest checkpoint that is whole: the Trainer writes its state last."""
    whole = [path.parent for path in checkpoints.glob("checkpoint-*/trainer_state.json")]
    steps = {int(path.name.rsplit("-", 1)[1]): path for path in whole}
    return str(steps[max(steps)]) if steps else None


def _score_with(problem: Problem) -> Callable[[Any], Mapping[str, float]]:
    """Return what the Trainer scores validation with: our modules, combined."""
    metric = evaluate.combine([Accuracy(config_name=problem), F1(config_name=problem)])

    def compute(prediction: Any) -> Mapping[str, float]:
        found = metric.compute(prediction.predictions, prediction.label_ids)
        return {name: found[name] for name in ("accuracy", "macro_f1")}

    return compute


def _curve(log: list[dict[str, float]]) -> list[Curve]:
    """Merge the Trainer's training and validation lines of each epoch into one point."""
    names = {
        "loss": "train/loss",
        "eval_loss": "validation/loss",
        "eval_accuracy": "validation/accuracy",
        "eval_macro_f1": "validation/macro_f1",
    }
    epochs: dict[float, Curve] = {}
    for line in log:
        point = epochs.setdefault(line["epoch"], {"epoch": line["epoch"], "step": line["step"]})
        point.update({names[key]: value for key, value in line.items() if key in names})
    return list(epochs.values())
