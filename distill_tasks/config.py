"""The configuration: all that the user writes, read from YAML and refused with a clear word."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from distill_tasks.core.credentials import refuse_credentials
from distill_tasks.core.errors import InputError, shortlist
from distill_tasks.core.mistakes import explain_first, list_unknown_keys
from distill_tasks.core.overrides import override
from distill_tasks.core.settings import Settings, count_grid, expand_grid
from distill_tasks.core.yaml_file import read_yaml
from distill_tasks.data.settings import DataConfig
from distill_tasks.execution import ExecutionConfig, LocalExecution
from distill_tasks.measuring.cost import CostConfig
from distill_tasks.measuring.latency import MeasureConfig
from distill_tasks.problems.classification import Problem
from distill_tasks.scoring.settings import EvaluateConfig, SelectConfig
from distill_tasks.scoring.thresholds import Thresholds
from distill_tasks.students import Student, StudentConfig
from distill_tasks.students.formats import ExportConfig
from distill_tasks.students.search_settings import SearchConfig
from distill_tasks.teachers import TeacherConfig
from distill_tasks.training.loss_settings import LossConfig
from distill_tasks.training.objective import HIDDEN_TERMS

AUTO: Literal["auto"] = "auto"
MAX_CANDIDATES, LARGEST_GRID = 200, 10_000
"""Students that a grid may hold unless the user says otherwise, and whatever the user says."""


class BudgetConfig(Settings):
    """What a run may take."""

    minutes: PositiveFloat = Field(
        description="Of all work, by the estimates of `potstill plan`: students that do not fit "
        "are left out, the dearest first, and named. At least one of each family is kept if it "
        "fits."
    )


LOCAL_UI = "http://127.0.0.1:5000"
TRACKING_URI = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
"""Where MLflow records unless a configuration says it; MLflow changes the variable later."""


class TrackingConfig(Settings):
    """Where runs and models are recorded."""

    uri: str = Field(
        default_factory=lambda: TRACKING_URI,
        validate_default=True,
        description="MLflow tracking URI: a database or a server, without a password; when absent, "
        "that of MLFLOW_TRACKING_URI in the environment, or sqlite:///mlflow.db.",
    )
    experiment: str = Field("potstill", min_length=1, description="MLflow experiment.")
    ui: str | None = Field(
        None,
        pattern=r"^https?://[^/\s]+(/\S*)?$",
        description="Address of MLflow's UI, in links and for `potstill ui`; when absent, the "
        f"server in `uri`, or {LOCAL_UI} for a database.",
    )

    @classmethod
    def at(cls, uri: str | None) -> Self:
        """Return the tracking at an address, or where a configuration that names none has it."""
        return cls() if uri is None else cls(uri=uri)

    @field_validator("uri")
    @classmethod
    def _refuse_password(cls, uri: str) -> str:
        """Refuse a password that the environment brings: what is written was looked at before."""
        refuse_credentials({"tracking.uri": uri})
        return uri

    @property
    def is_server(self) -> bool:
        """Whether a server of MLflow holds the runs, which has pages of its own."""
        return self.uri.startswith("http")

    @property
    def ui_address(self) -> str:
        """The address of MLflow's UI, without a slash at its end."""
        return (self.ui or (self.uri if self.is_server else LOCAL_UI)).rstrip("/")


class RegistryConfig(Settings):
    """Where the chosen student is registered, and when it may replace the champion."""

    model: str = Field(
        min_length=1,
        max_length=200,
        pattern=r"^[\w. -]+$",
        description="Registered model's name: letters, digits, space, dot, dash, underscore.",
    )
    allowed_drop: float = Field(
        0.005,
        ge=0,
        le=1,
        description="Loss of the metric, as a share, that a clearly faster challenger may have, "
        "and an int8 variant against torch.",
    )
    candidate: Literal["chosen", "words-on-gold"] = Field(
        "chosen",
        description="What is registered: the chosen student, or the cheap control that learns from "
        "gold alone, where the report says that it does as well. The control keeps the same "
        "promises and passes the same gate.",
    )
    promote: Literal["auto", "review", "never"] = Field(
        "auto",
        description="Who makes a version champion that passed the gate: the run itself, the run "
        "once a person has approved the version, or nobody.",
    )
    thresholds: Thresholds = Field(
        Thresholds(),
        description="Further conditions by metric, in the words of MLflow's MetricThreshold; all "
        "must hold beside the gate's own rule.",
    )
    first: Literal["proven", "any"] = Field(
        "proven",
        description="What may become the first champion: a student that BEATS itself trained "
        "without the teacher, or any that keeps its promises.",
    )


def find_local_folder(written: str) -> str:
    """Return a path with ``~`` as the home it stands for; any other stays as it is written.

    Raises ValueError for what is no path of this machine: runs lock their folder.
    """
    if re.match(r"[A-Za-z][\w+.-]*:/", written) or not written.strip():
        raise ValueError("runs lock their folder, so it must be a path of this machine")
    if not written.startswith("~"):
        return written
    try:
        return str(Path(written).expanduser())
    except RuntimeError:
        raise ValueError("there is no such user, so no such home") from None


class DistillConfig(Settings):
    """One distillation: data, teacher, students, and what is asked of the one that is kept."""

    name: str = Field(
        min_length=1,
        max_length=200,
        pattern=r"^[\w.-]+$",
        description="Name of the distillation, for people.",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of everything random.")
    work_dir: Annotated[str, AfterValidator(find_local_folder)] = Field(
        ".potstill", description="Folder of what is kept between runs: labels, teachers, students."
    )
    problem: Problem = Field(
        "single_label", description="Whether a text has exactly one label, or any number."
    )
    data: DataConfig = Field(description="The rows and their columns.")
    teacher: TeacherConfig = Field(description="The large model that answers once.")
    students: Annotated[tuple[StudentConfig, ...], BeforeValidator(expand_grid)] = Field(
        min_length=1, description="Families of students; list-valued fields span a grid."
    )
    max_candidates: int = Field(
        MAX_CANDIDATES,
        ge=1,
        le=LARGEST_GRID,
        description="Students that the grid may hold, and the search may add.",
    )
    search: SearchConfig = Field(SearchConfig(), description="The way through the grid.")
    loss: LossConfig = Field(LossConfig(), description="The distillation loss.")
    evaluate: EvaluateConfig = Field(EvaluateConfig(), description="Seeds and controls.")
    export: ExportConfig = Field(ExportConfig(), description="Other runtimes.")
    measure: MeasureConfig = Field(MeasureConfig(), description="The stopwatch.")
    select: SelectConfig = Field(SelectConfig(), description="The choice among the students.")
    budget: BudgetConfig | None = Field(
        None, description="What the run may take; when absent, the whole grid is trained."
    )
    execution: ExecutionConfig = Field(
        LocalExecution(), description="Where students are trained; what comes out is the same."
    )
    cost: CostConfig | None = Field(None, description="Prices; when absent, none are reported.")
    tracking: TrackingConfig = Field(default_factory=TrackingConfig, description="MLflow tracking.")
    registry: RegistryConfig = Field(description="MLflow Model Registry.")

    @property
    def possible_students(self) -> list[Student]:
        """The students of the grid, and those at the ends of what a search may draw."""
        return [*self.students, *self.search.corners]

    @model_validator(mode="before")
    @classmethod
    def _count_grid(cls, written: Any) -> Any:
        """Refuse a grid that is too large before its students are made."""
        if isinstance(written, dict):
            students = count_grid(written.get("students"))
            allowed = written.get("max_candidates", MAX_CANDIDATES)
            most = allowed if allowed in range(1, LARGEST_GRID) else LARGEST_GRID
            if students > most:
                raise ValueError(_refuse_grid(students, "", most))
        return written

    @model_validator(mode="after")
    def _check_grid(self) -> Self:
        trials = self.search.optuna.trials if self.search.optuna else 0
        if len(self.students) + trials > self.max_candidates:
            tried = f" and search.optuna tries {trials}" if trials else ""
            raise ValueError(_refuse_grid(len(self.students), tried, self.max_candidates))
        possible = self.possible_students
        names = Counter(student.name for student in self.students)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise ValueError(f"students are listed twice: {shortlist(sorted(twice))}")
        inside = [term for term in self.loss.terms if term in HIDDEN_TERMS]
        if inside and not any(student.reads_as_teacher for student in possible):
            raise ValueError(
                f"loss.terms: no student can lower {shortlist(inside)}; add one of family layers "
                "that keeps the teacher's vocabulary, or take them out"
            )
        if len(inside) == len(self.loss.terms):
            raise ValueError(
                "loss.terms has none that every student can lower; add kl, reverse_kl, js, dkd or "
                "dist"
            )
        single: list[str] = [term for term in self.loss.terms if term in ("dkd", "dist")]
        single += ["standardize"] * self.loss.standardize
        if single and self.problem == "multi_label":
            raise ValueError(
                f"loss: {shortlist(single)} only for a single label; use kl, reverse_kl or js"
            )
        if self.evaluate.validation_folds > 1 and self.data.validation is not None:
            raise ValueError(
                "evaluate.validation_folds carves validation from train, but data.validation is "
                "given; take one of them out"
            )
        if self.evaluate.validation_folds > 1 and self.data.label_column is None:
            raise ValueError("evaluate.validation_folds needs gold, but data.label_column is null")
        if self.teacher.start is None:
            needy = [student.name for student in possible if student.needs_teacher_weights]
            if needy:
                raise ValueError(
                    f"a {self.teacher.kind} teacher has no weights for {shortlist(needy)} to start "
                    "from; use family bag_of_words, or static with an encoder as its `model`"
                )
        return self


def _refuse_grid(students: int, tried: str, most: int) -> str:
    return (
        f"the grid holds {students:,} students{tried}, more than max_candidates ({most:,}); "
        "shorten its lists, or raise max_candidates"
    )


def load_config(path: Path | str, overrides: Mapping[str, Any] | None = None) -> DistillConfig:
    """Read a configuration from YAML, with ``overrides`` by dotted key, as `override` takes them.

    Raises InputError for a missing file, broken YAML, or a key or value that is not allowed.
    """
    return parse_config(read_settings(path), str(path), overrides)


def read_settings(path: Path | str) -> dict[str, Any]:
    """Return a configuration file as plain data, which is not yet validated."""
    written = read_yaml(Path(path))
    if not isinstance(written, dict):
        raise InputError(f"{path} holds no settings. See examples/reuters/distill.yaml.")
    return written


def parse_config(
    written: dict[str, Any], source: str, overrides: Mapping[str, Any] | None = None
) -> DistillConfig:
    """Return the configuration of plain data, or raise InputError naming its first mistake."""
    if overrides:
        written = override(written, overrides)
        source = f"{source} with {shortlist(overrides)} set"
    try:
        return DistillConfig.model_validate(written)
    except ValidationError as error:
        mistakes = [dict(found) for found in error.errors()]
        schema = DistillConfig.model_json_schema()
        raise InputError(f"{source}: {explain_first(mistakes, written, schema)}") from None
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def find_unknown_keys(written: dict[str, Any]) -> list[str]:
    """Return the keys of plain data that a configuration does not have, with what may be meant."""
    try:
        DistillConfig.model_validate(written)
    except ValidationError as error:
        mistakes = [dict(found) for found in error.errors()]
        return list_unknown_keys(mistakes, written, DistillConfig.model_json_schema())
    return []


def write_schema() -> str:
    """Return the JSON schema that editors complete a distill.yaml from."""
    return json.dumps(DistillConfig.model_json_schema(), indent=2) + "\n"
