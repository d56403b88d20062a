"""The evaluator `distillation` of `mlflow.models.evaluate`. `import mlflow` imports this module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException
from mlflow.models.evaluation.base import EvaluationResult, ModelEvaluator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow.models.evaluation import EvaluationDataset

NAME = "distillation"


class DistillationEvaluator(ModelEvaluator):
    """Compares a student with its teacher: fidelity, calibration, verdict and latency.

    Its section of ``evaluator_config`` is described by `Request`.
    """

    @classmethod
    def can_evaluate(
        cls, *, model_type: str | None, evaluator_config: Mapping[str, Any] | None, **kwargs: Any
    ) -> bool:
        """Return whether a teacher was named: MLflow asks also where nobody meant this one."""
        return "teacher" in _read_section(evaluator_config)

    def evaluate(
        self,
        *,
        dataset: EvaluationDataset,
        run_id: str,
        evaluator_config: Mapping[str, Any] | None,
        model: Any = None,
        predictions: str | None = None,
        model_id: str | None = None,
        **kwargs: Any,
    ) -> EvaluationResult:
        """Evaluate a student, log metrics and artifacts to the run, and return both.

        Raises MlflowException, in one or two lines, for what cannot be compared.
        """
        from distill_tasks.core.errors import InputError
        from distill_tasks.plugins.artifacts import log_comparison, log_metrics
        from distill_tasks.plugins.asking import ask_all
        from distill_tasks.plugins.comparison import compare_all
        from distill_tasks.plugins.request import read_request

        try:
            request = read_request(_read_section(evaluator_config))
            asked = ask_all(request, dataset, model, predictions)
            comparison = compare_all(request, asked)
        except InputError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        if model_id is None:  # else MLflow logs the metrics itself
            linked = getattr(model, "model_id", None)
            log_metrics(run_id, comparison.metrics, linked, dataset)
        return log_comparison(run_id, comparison, asked)


def _read_section(config: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return what is meant for this evaluator, written under its name or not."""
    config = config or {}
    section: Mapping[str, Any] = config.get(NAME, config)
    return section
