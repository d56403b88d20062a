"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

Config = Annotated[Path, Parameter(help="The distill.yaml.")]
TrackingUri = Annotated[
    str | None,
    Parameter(
        help="MLflow tracking URI; else that of a distill.yaml that is given, MLFLOW_TRACKING_URI, "
        "or sqlite:///mlflow.db."
    ),
]
DryRun = Annotated[bool, Parameter(help="Say what would happen and change nothing.", negative="")]
WaitMinutes = Annotated[
    float,
    Parameter(
        help="How long to wait where another run works in the same work_dir; 0 ends at once.",
        validator=validators.Number(gte=0),
    ),
]
Json = Annotated[
    bool,
    Parameter(
        name="--json",
        help="Print one JSON object on stdout and nothing else there, also where the command "
        "fails: command, outcome, exit_code, message and what docs/command_line.md lists.",
        negative="",
    ),
]
Set = Annotated[
    list[str] | None,
    Parameter(
        name="--set",
        help="A setting for this once, `key=value`: the dotted key as in `students.0.layers`, the "
        "value as YAML. Again for each.",
        negative="",
    ),
]
Estimate = Annotated[
    bool,
    Parameter(help="Say what the missing answers would cost, and ask nothing.", negative=""),
]
Smoke = Annotated[
    bool,
    Parameter(
        help="Ask about 16 rows alone, and show the prompt and every answer; they are kept.",
        negative="",
    ),
]
AcceptLicence = Annotated[
    bool,
    Parameter(
        help="Accept the teacher's licence, where `teacher.licence.may_train` is `ask`.",
        negative="",
    ),
]
DetailedExitCodes = Annotated[
    bool,
    Parameter(
        help="End with 3 where the challenger was not promoted, and with 4 where no candidate "
        "qualified.",
        negative="",
    ),
]
