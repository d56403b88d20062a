"""The training loop of transformer teachers and students: `transformers.Trainer`, made faster."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from distill_tasks.core.memory import collect_garbage
from distill_tasks.core.progress import ProgressFile, Training
from distill_tasks.problems.classification import NO_LABEL, Problem
from distill_tasks.scoring.metrics import F1, Accuracy
from distill_tasks.training.batches import Collator, Order
from distill_tasks.training.compilation import FasterReader, Read
from distill_tasks.training.curve import Curve, read_curve
from distill_tasks.training.device import Device, choose_device, present_ranks
from distill_tasks.training.first_token import read_first_token
from distill_tasks.training.hidden_states import OnlineTeacher
from distill_tasks.training.interruption import StopBetweenSteps
from distill_tasks.training.losses import check_finite, distillation_loss, gold_loss
from distill_tasks.training.multi_gpu import LONGEST_WAIT_S, Barrier, count_ranks, work_together
from distill_tasks.training.random_weights import seeded
from distill_tasks.training.recipe import Recipe
from distill_tasks.training.tokens import ANSWERS, LENGTH
from distill_tasks.training.working_copy import WorkingCopy, learns_embeddings

logger = logging.getLogger("potstill")

CHECKPOINTS = "checkpoints"
"""The subfolder of a model's folder with the checkpoints to continue from."""


def train_classifier(
    make_model: Callable[[], PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    validation: Dataset,
    recipe: Recipe,
    folder: Path,
    online_teacher: OnlineTeacher | None = None,
    progress: ProgressFile | None = None,
) -> list[Curve]:
    """Train a sequence classifier into ``folder`` and return one curve point for each epoch.

    ``rows`` and ``validation`` come from `Tokens.read_rows`. Random weights of ``make_model`` are
    determined by the recipe's seed. ``online_teacher`` runs on each batch too, for the loss terms
    that need it; each step is written to ``progress``. A checkpoint in the folder is continued: a
    kill loses at most one epoch, SIGTERM and SIGINT nothing. If memory runs out, training is tried
    once more with half the batch and as many steps.
    """
    collect_garbage()  # so that accelerate's own collection has little left to visit

    def train(recipe: Recipe) -> list[Curve]:
        device = choose_device()
        gpus = device.gpus if online_teacher is None else 1  # it can serve one process only
        given = make_model, tokenizer, rows, validation, recipe, folder
        work = partial(_train, *given, device, online_teacher, progress)
        return work_together(count_ranks(gpus, recipe.batch_rows), work)

    try:
        return train(recipe)
    except (RuntimeError, MemoryError) as error:
        if recipe.batch_rows < 2 or not is_out_of_memory(error):
            raise
    split = recipe.split_batch()
    logger.warning("train: out of memory, trying again with %d rows at a time", split.batch_rows)
    collect_garbage()
    torch.cuda.empty_cache()
    return train(split)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error reports that memory ran out, on the CPU or on a GPU."""
    message = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in message)
    )


def _train(
    make_model: Callable[[], PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    validation: Dataset,
    recipe: Recipe,
    folder: Path,
    device: Device,
    online_teacher: OnlineTeacher | None,
    progress: ProgressFile | None,
    barrier: Barrier,
) -> list[Curve]:
    checkpoints, stop = folder / CHECKPOINTS, StopBetweenSteps(recipe.share)
    validated = bool((np.array(validation["labels"]) != NO_LABEL).all())
    with ExitStack() as joined:
        with seeded(recipe.seed):
            model = make_model()
            if online_teacher is None:  # else every token's last state is compared
                read_first_token(model)
            else:
                joined.enter_context(online_teacher.joined(model))
            barrier()
            copied = device.working_copy and not learns_embeddings(model)
            trainer = _DistillationTrainer(
                recipe,
                online_teacher,
                WorkingCopy(model) if copied else None,
                model=model,
                args=_arguments(recipe, device, checkpoints, validated, device.bf16 and not copied),
                train_dataset=rows,
                eval_dataset=validation,
                data_collator=Collator(tokenizer, recipe.max_length),
                compute_metrics=_score_with(recipe.problem),
                callbacks=[*_callbacks(recipe, validated, progress), stop],
            )
        trainer.remove_callback(PrinterCallback)
        compiles = device.compiles_training and online_teacher is None and present_ranks() == 1
        reader = (
            closing(FasterReader(model, recipe.epochs * recipe.share * sum(rows[LENGTH])))
            if compiles
            else nullcontext()
        )
        with stop.listening(), reader as trainer.reader:
            trainer.train(resume_from_checkpoint=_last_whole(checkpoints))
    if trainer.is_world_process_zero():
        model.float().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if recipe.share == 1:
            shutil.rmtree(checkpoints, ignore_errors=True)
    return read_curve(trainer.state.log_history)


class _DistillationTrainer(Trainer):
    """A Trainer with the teacher's logits as a column of the data, and a model only if needed."""

    def __init__(
        self,
        recipe: Recipe,
        online_teacher: OnlineTeacher | None,
        working: WorkingCopy | None,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.recipe = recipe
        self.online_teacher = online_teacher
        self.model_accepts_loss_kwargs = False
        self.working = working
        self.reader: Read | None = None
        """Runs the training batches instead of the model itself, if set."""

    def training_step(self, *arguments: Any, **keywords: Any) -> Tensor:
        """Compute the gradients of a batch, and return its loss."""
        loss = super().training_step(*arguments, **keywords)
        if self.working is not None:
            self.working.hand_over()
        return loss

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the loss of a batch: distillation with teacher logits, cross-entropy without."""
        teacher, answer_weights = (inputs.pop(name, None) for name in ANSWERS)
        labels = inputs["labels"]
        read = {key: value for key, value in inputs.items() if key != "labels"}
        outputs = self._choose_reader(model)(**read)
        logits = outputs.logits.float()
        recipe, class_weights = self.recipe, None
        if recipe.class_weights is not None:
            class_weights = torch.from_numpy(recipe.class_weights).to(logits.device)
        if teacher is None or recipe.objective is None:
            loss = gold_loss(logits, labels, class_weights).mean()
        else:
            loss = distillation_loss(
                logits, teacher, labels, recipe.objective, class_weights, answer_weights
            )
            if self.online_teacher is not None:
                loss = loss + self.online_teacher.loss(read, labels)
        if model.training:
            check_finite(loss, self.state.global_step + 1, recipe.learning_rate)
        return (loss, {"logits": logits}) if return_outputs else loss

    def _choose_reader(self, model: torch.nn.Module) -> Read:
        if self.working is not None:
            return self.working.refresh(model.training)
        return self.reader if self.reader is not None and model.training else model

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Order:
        """Return a sampler whose order is the same wherever in an epoch training continues."""
        rows: Any = self.train_dataset
        return Order(self.recipe, rows[LENGTH], lambda: int(self.state.epoch or 0))


class _Patience(TrainerCallback):
    """Stops early after epochs without a better validation loss, also in a continued training."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        losses = [line["eval_loss"] for line in state.log_history if "eval_loss" in line]
        if len(losses) - losses.index(min(losses)) > self.epochs:
            control.should_training_stop = True


class _TellProgress(TrainerCallback):
    """Reports every step as progress, and makes the Trainer log its loss at some of them."""

    def __init__(self, recipe: Recipe, progress: ProgressFile | None) -> None:
        self.progress = progress
        self.rows = recipe.batch_rows * recipe.accumulated_batches
        self.share = recipe.share

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        file = self.progress if state.is_world_process_zero else None
        self.training = Training(file, state.max_steps, self.rows, self.share, state.global_step)
        for line in state.log_history:  # not empty if a training is continued
            self._tell(line)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.training.reach(state.global_step)
        control.should_log |= self.training.wants_loss(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._tell(state.log_history[-1])

    def _tell(self, line: dict[str, Any]) -> None:
        self.training.reach(line["step"], line.get("loss"), line.get("eval_accuracy"))


def _arguments(
    recipe: Recipe, device: Device, checkpoints: Path, validated: bool, autocast: bool
) -> TrainingArguments:
    patient = validated and recipe.patience_epochs is not None
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        warmup_steps=0.1,
        lr_scheduler_type="linear",
        weight_decay=0.01,
        per_device_train_batch_size=recipe.batch_rows // present_ranks(),
        gradient_accumulation_steps=recipe.accumulated_batches,
        per_device_eval_batch_size=32,
        train_sampling_strategy="group_by_length",
        bf16=autocast,
        use_cpu=device.kind == "cpu",
        dataloader_pin_memory=device.kind == "cuda",
        optim="adamw_torch_fused",
        eval_strategy="epoch" if validated else "no",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=patient,
        metric_for_best_model="eval_loss" if patient else None,
        greater_is_better=False,
        logging_strategy="epoch",
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=[],
        disable_tqdm=True,
        seed=recipe.seed,
        ddp_timeout=LONGEST_WAIT_S,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # with more, this process would put a batch on each for one step
    return arguments


def _callbacks(
    recipe: Recipe, validated: bool, progress: ProgressFile | None
) -> list[TrainerCallback]:
    callbacks: list[TrainerCallback] = [_TellProgress(recipe, progress)]
    if validated and recipe.patience_epochs is not None:
        callbacks.append(_Patience(recipe.patience_epochs))
    return callbacks


def _last_whole(checkpoints: Path) -> str | None:
    """Return the newest complete checkpoint, which has the file that the Trainer writes last."""
    whole = [path.parent for path in checkpoints.glob("checkpoint-*/trainer_state.json")]
    steps = {int(path.name.rsplit("-", 1)[1]): path for path in whole}
    return str(steps[max(steps)]) if steps else None


def _score_with(problem: Problem) -> Callable[[Any], Mapping[str, float]]:
    """Return the function by which the Trainer scores validation: our metrics combined."""
    metric = evaluate.combine([Accuracy(config_name=problem), F1(config_name=problem)])

    def compute(prediction: Any) -> Mapping[str, float]:
        found = metric.compute(prediction.predictions, prediction.label_ids)
        return {name: found[name] for name in ("accuracy", "macro_f1")}

    return compute
