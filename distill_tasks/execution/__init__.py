"""Where the students of a grid are trained: one file for each kind, behind `Execution`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distill_tasks.execution.base import Execution, Workers
from distill_tasks.execution.local import LocalExecution
from distill_tasks.execution.ray_cluster import RayExecution

ExecutionConfig = Annotated[LocalExecution | RayExecution, Field(discriminator="kind")]

__all__ = ["Execution", "ExecutionConfig", "LocalExecution", "Workers"]
