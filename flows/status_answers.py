"""What `potstill status` and `automations` answer, as objects with documented keys."""

from __future__ import annotations

from pydantic import BaseModel, Field

from flows.answers import Answer


class TrainingAnswer(BaseModel):
    """One training that runs now."""

    name: str = Field(description="The candidate, or `teacher`.")
    step: int = Field(description="Steps that are done.")
    steps: int = Field(description="Steps of the whole training; 0 where it has not reached one.")


class RunningAnswer(BaseModel):
    """The run that works in `work_dir` now."""

    run: str = Field(description="Its command and name.")
    pid: int | None = Field(description="Its process.")
    host: str | None = Field(description="The machine of that process.")
    since: str | None = Field(description="Since when it holds `work_dir`.")
    stage: str | None = Field(description="What its present stage does.")
    stage_number: int | None = Field(description="Which of the stages that is, counted from 1.")
    stages: int | None = Field(description="Number of its stages.")
    seconds_left: float | None = Field(description="Estimate; null where too little is known.")
    training: list[TrainingAnswer] = Field(description="Candidates that train now.")
    flow_run: str | None = Field(description="Its Prefect flow run.")
    flow_run_link: str | None = Field(description="Address of that flow run's page.")
    link: str | None = Field(description="Address of its run in MLflow.")


class StoreAnswer(BaseModel):
    """What the next run finds in `work_dir`."""

    trained: list[str] = Field(description="Students of the grid trained before, by name.")
    missing: list[str] = Field(description="The other students of the grid.")
    begun: int = Field(description="Interrupted trainings that go on from a checkpoint.")
    answers: int = Field(description="Rows that teachers have answered.")


class PastRunAnswer(BaseModel):
    """One distillation of this name."""

    started: str = Field(description="When, in UTC, ISO 8601.")
    status: str = Field(description="RUNNING, FINISHED, FAILED, KILLED; INTERRUPTED by a kill.")
    chosen: str | None = Field(description="The chosen student.")
    verdict: str | None = Field(description="BEATS, NO BEATS or INCONCLUSIVE of that student.")
    outcome: str | None = Field(description="What became of the version, or why the run failed.")
    link: str = Field(description="Address of its run in MLflow.")
    flow_run_link: str | None = Field(description="Address of its Prefect flow run.")


class ChampionAnswer(BaseModel):
    """The version that serves."""

    version: int = Field(description="The version.")
    since: str | None = Field(description="When it became champion; null where it was by hand.")
    by: str | None = Field(description="Who made it champion.")
    why: str | None = Field(description="Why.")
    link: str = Field(description="Address of its card in MLflow.")


class WaitingAnswer(BaseModel):
    """A version that waits for a person, or for `promote` to carry out what one decided."""

    version: int = Field(description="The version.")
    decision: str = Field(description="`pending`, or the decision that `promote` carries out.")
    note: str = Field(description="What its tag `review.note` says.")
    command: str = Field(description="The command that comes next.")
    link: str = Field(description="Address of its card in MLflow.")


class StatusAnswer(Answer):
    """What `status` prints."""

    name: str = Field(description="Name of the distillation.")
    work_dir: str = Field(description="The folder of what is kept between runs.")
    running: RunningAnswer | None = Field(description="The run that works there; null if none.")
    store: StoreAnswer = Field(description="What the next run finds there.")
    model: str = Field(description="Name of the registered model.")
    unanswered: str | None = Field(
        description="Why MLflow's part is missing, from `runs` on; null where it is not."
    )
    runs: list[PastRunAnswer] = Field(description="The last runs, the latest first.")
    champion: ChampionAnswer | None = Field(description="The champion; null if there is none.")
    previous: int | None = Field(description="Version to which `rollback` returns.")
    challenger: int | None = Field(description="Version that is challenger.")
    waiting: list[WaitingAnswer] = Field(description="Versions that wait for somebody.")


class AutomationAnswer(BaseModel):
    """One automation of Prefect."""

    name: str = Field(description="Its name.")
    about: str = Field(description="When it tells people.")
    change: str = Field(
        description="`created`, `updated`, `as it was`, or `would be created or updated`."
    )


class AutomationsAnswer(Answer):
    """What `automations` prints."""

    applied: bool = Field(description="Whether the server has them now.")
    automations: list[AutomationAnswer] = Field(description="What people are told.")
