"""A stage of the story: a plain function as a Prefect task."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.tasks import Task
from prefect.transactions import TransactionState, get_transaction

from distill_tasks.core.errors import PotstillError, stop_if_disk_full
from distill_tasks.core.memory import release_memory
from distill_tasks.core.retries import say_unanswered
from distill_tasks.core.run_progress import told_stage

P = ParamSpec("P")
R = TypeVar("R")


def stage(run_name: str, retries: int = 0) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Return a decorator that makes a function a Prefect task, to be called, submitted or mapped.

    A result whose ``reused`` is true shows as the task state Cached. The store's manifests decide
    what is reused, not Prefect's cache, so a missing folder means made again, never a crash.
    ``run_name`` may name parameters in braces. Errors of the user's input are never retried.
    """

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            with told_stage(function.__name__) as reused:
                try:
                    result = function(*args, **kwargs)
                except Exception as error:
                    stop_if_disk_full(error)
                    raise
                finally:
                    release_memory()
                reused.append(getattr(result, "reused", False))
            if any(reused):
                _show_as_cached()
            return result

        return task(
            name=function.__name__,
            task_run_name=run_name,
            cache_policy=NO_CACHE,
            retries=retries,
            retry_delay_seconds=5,
            retry_condition_fn=_can_help,
        )(run)

    return decorate


def _show_as_cached() -> None:
    """Have this task run end in the state Cached.

    That is Prefect's own name for a task whose transaction was committed before. A state returned
    instead would be what the call of a task yields, not the result in it.
    """
    transaction = get_transaction()
    if TaskRunContext.get() is not None and transaction is not None:
        transaction.state = TransactionState.COMMITTED


def _can_help(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Return whether a retry can help; it cannot if the input or the outcome is at fault.

    MLflow has asked a server that does not answer often enough itself.
    """
    error = state.result(raise_on_failure=False)
    return not isinstance(error, PotstillError) and say_unanswered(error) is None
