"""Variants of a trained transformer: the same student, exported for a faster runtime."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from distill_tasks.core.errors import InputError
from distill_tasks.core.settings import Settings
from distill_tasks.serving.served_model import ABOUT, GRAPH
from distill_tasks.serving.served_text import bound, open_tokenizer, read_ids
from distill_tasks.students.folder import describe_model

if TYPE_CHECKING:
    import onnx_ir

    from distill_tasks.problems.classification import Problem
    from distill_tasks.training.checkpoint import Checkpoint

Variant = Literal["onnx", "onnx_int8", "onnx_int8_static"]

USUAL: tuple[Variant, ...] = ("onnx", "onnx_int8")
"""Static int8 is made on request only, because it was slower wherever it was measured."""
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
CALIBRATION_ROWS = 100


class ExportConfig(Settings):
    """In which forms a transformer student competes beside torch."""

    variants: tuple[Variant, ...] | Literal["auto"] = Field(
        "auto",
        description="onnx (float32), onnx_int8 (scales found while answering), onnx_int8_static "
        "(scales found on transfer rows). `auto`: the first two, where the extra `onnx` is "
        "installed.",
    )

    @field_validator("variants")
    @classmethod
    def _check_repeats(cls, variants: tuple[Variant, ...] | str) -> tuple[Variant, ...] | str:
        if len(set(variants)) < len(variants) and variants != "auto":
            raise ValueError("a variant is listed twice")
        return variants


def choose_variants(config: ExportConfig) -> tuple[Variant, ...]:
    """Return the variants that are made of every transformer student.

    Raises InputError if the configuration names one whose packages are not installed.
    """
    absent = [name for name in PACKAGES if find_spec(name) is None]
    if isinstance(config.variants, str):
        return () if absent else USUAL
    if config.variants and absent:
        raise InputError(
            f"export.variants asks for {', '.join(config.variants)}, but {', '.join(absent)} is "
            "not installed. `pip install 'potstill[onnx]'`, or set export.variants to []."
        )
    return config.variants


def export_variant(
    source: Path, variant: Variant, graph: Path | None, texts: Sequence[str], target: Path
) -> None:
    """Write a variant of the transformers model in ``source`` into ``target``.

    ``graph`` is its float32 graph if there is one already; ``texts`` calibrate static int8. May
    raise any exception, because exporters have no common error type.
    """
    import onnx_ir
    from transformers import AutoTokenizer

    about = json.loads((source / ABOUT).read_text(encoding="utf-8"))
    with _quiet():
        model = onnx_ir.load(graph) if graph else trace(source)
        if variant == "onnx_int8":
            model = quantize(model, None)
        elif variant == "onnx_int8_static":
            model = quantize(model, _feeds(source, about["max_length"], texts))
        for node in model.graph.all_nodes():
            node.metadata_props.clear()  # half of the file: stack traces of this machine
        onnx_ir.save(model, target / GRAPH)
    open_tokenizer(source, about["max_length"]).save(str(target / "tokenizer.json"))
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    described = about | {"runtime": "onnx", "padding": tokenizer.pad_token_id or 0}
    (target / ABOUT).write_text(json.dumps(described, indent=2), encoding="utf-8")


def save_teacher(model: Checkpoint, problem: Problem, classes: Sequence[str], folder: Path) -> None:
    """Write a classifier into a folder as a trained student lies there, to be exported."""
    from distill_tasks.training.probe import load_classifier

    tokenizer, network = model.open_tokenizer(), load_classifier(model, ready=True)
    bound(tokenizer.backend_tokenizer, model.max_length, tokenizer.truncation_side)
    tokenizer.save_pretrained(folder)
    network.float().save_pretrained(folder)
    describe_model(
        folder,
        "transformers",
        problem,
        classes,
        max_length=model.max_length,
        parameters=network.num_parameters(),
    )


def trace(source: Path) -> onnx_ir.Model:
    """Return the float32 graph of a transformers sequence classifier, for any batch and length."""
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.exporters.configs import OnnxConfig
    from transformers.exporters.exporter_onnx import OnnxExporter

    from distill_tasks.training.first_token import read_first_token

    model = AutoModelForSequenceClassification.from_pretrained(
        source, dtype="float32", trust_remote_code=False
    ).eval()
    read_first_token(model)
    mask = torch.ones((2, 8), dtype=torch.int64)
    mask[1, 5:] = 0  # one row is padded, so that the mask is part of the graph
    sample: dict[str, Any] = {"input_ids": mask.clone(), "attention_mask": mask}
    exported: onnx_ir.Model = OnnxExporter().export(model, sample, OnnxConfig(dynamic=True)).program
    return exported


def quantize(model: onnx_ir.Model, feeds: list[dict[str, Any]] | None) -> onnx_ir.Model:
    """Return a graph with int8 weights.

    The scales of activations are found on ``feeds``, or at inference if there are none.
    """
    from onnxruntime.quantization import QuantType
    from transformers.exporters.configs import ExportFormat
    from transformers.exporters.quantizers.quantizer_onnxruntime import (
        OnnxRuntimeDynamicConfig,
        OnnxRuntimeQuantizer,
        OnnxRuntimeStaticConfig,
    )

    if feeds is None:
        quantizer = OnnxRuntimeQuantizer(OnnxRuntimeDynamicConfig(per_channel=True))
        return quantizer.quantize(model, {}, ExportFormat.ONNX)
    # Unsigned activations, and matrix products only: the defaults were six times slower.
    settings = OnnxRuntimeStaticConfig(
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul", "Gemm"],
    )
    quantizer = OnnxRuntimeQuantizer(settings, calibration_dataset=feeds)
    return quantizer.quantize(model, feeds[0], ExportFormat.ONNX)


def _feeds(source: Path, max_length: int, texts: Sequence[str]) -> list[dict[str, Any]]:
    import torch

    tokenizer = open_tokenizer(source, max_length)
    rows = [torch.tensor([ids]) for ids in read_ids(tokenizer, texts, special_tokens=True)]
    return [{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in rows]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters inside the block; they log every step."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
