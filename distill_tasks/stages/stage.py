"""A stage of the story: a plain function shown as a Prefect task."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed
from prefect.tasks import Task

from distill_tasks.core.errors import PotstillError, stop_if_disk_full
from distill_tasks.core.memory import release_memory
from distill_tasks.tracking.retries import say_unanswered

P = ParamSpec("P")
R = TypeVar("R")


def stage(run_name: str, retries: int = 0) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that runs a function as one Prefect task.

    A result whose ``reused`` is true shows as the task state Cached. The store's manifests decide
    what is reused, not Prefect's cache, so a missing folder means made again, never a crash.
    ``run_name`` may name parameters in braces. Errors of the user's input are never retried.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> Any:
            try:
                result = function(*args, **kwargs)
            except Exception as error:
                stop_if_disk_full(error)
                raise
            finally:
                release_memory()
            if getattr(result, "reused", False):
                return Completed(name="Cached", message="kept from an earlier run", data=result)
            return result

        shown = task(
            name=function.__name__,
            task_run_name=run_name,
            cache_policy=NO_CACHE,
            retries=retries,
            retry_delay_seconds=5,
            retry_condition_fn=_can_help,
        )(run)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            outcome = shown(*args, **kwargs)
            return cast("R", outcome.result() if isinstance(outcome, State) else outcome)

        return call

    return decorate


def _can_help(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Return whether trying again can help: not where the input or the outcome is at fault.

    MLflow has asked a server that does not answer often enough itself.
    """
    error = state.result(raise_on_failure=False)
    return not isinstance(error, PotstillError) and say_unanswered(error) is None
