"""Conditions on a challenger beside its champion, in the words of MLflow's `MetricThreshold`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import Field, model_validator

from distill_tasks.core.settings import Settings

LOWER_IS_BETTER = ("p50_ms", "p95_ms")


class Threshold(Settings):
    """What a challenger must reach, by itself and beside the champion.

    Source: mlflow.models.MetricThreshold.
    """

    threshold: float | None = Field(
        None, description="The worst value that the challenger may have."
    )
    min_absolute_change: float | None = Field(
        None, gt=0, description="By how much it must be better than the champion."
    )
    min_relative_change: float | None = Field(
        None,
        gt=0,
        description="By which share of the champion's value it must be better.",
    )

    @model_validator(mode="after")
    def _ask_something(self) -> Threshold:
        if self.threshold is self.min_absolute_change is self.min_relative_change is None:
            raise ValueError(
                "give threshold, min_absolute_change or min_relative_change, or leave it out"
            )
        return self


class Thresholds(Settings):
    """Conditions by what they are about."""

    quality: Threshold | None = Field(None, description="About `select.metric`.")
    macro_f1: Threshold | None = Field(None, description="About macro F1.")
    p50_ms: Threshold | None = Field(None, description="About the median latency in ms.")
    p95_ms: Threshold | None = Field(None, description="About the p95 latency in ms.")


def find_missed(
    thresholds: Thresholds,
    challenger: Mapping[str, float],
    champion: Mapping[str, float],
) -> list[str]:
    """Return in words each condition that a challenger's values, by name, do not meet."""
    return [
        missed
        for name, asked in thresholds
        if asked is not None
        for missed in _find_missed(name, asked, challenger[name], champion[name])
    ]


def _find_missed(name: str, asked: Threshold, ours: float, theirs: float) -> Iterator[str]:
    sign = -1 if name in LOWER_IS_BETTER else 1
    gain = theirs - ours if name in LOWER_IS_BETTER else ours - theirs
    if asked.threshold is not None and sign * (ours - asked.threshold) < 0:
        yield f"{name} {ours:.4g} is worse than the threshold {asked.threshold:g}"
    if asked.min_absolute_change is not None and gain < asked.min_absolute_change:
        yield f"{name} is better by {gain:.4g}, not by {asked.min_absolute_change:g}"
    if asked.min_relative_change is not None and gain < asked.min_relative_change * abs(theirs):
        share = gain / abs(theirs) if theirs else 0.0
        yield f"{name} is better by {share:.2%}, not by {asked.min_relative_change:.2%}"
