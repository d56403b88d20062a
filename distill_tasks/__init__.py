"""How a distillation is done, and the door to it.

Every public name can be imported from here, as ``distil`` and ``load_config``, and its module is
imported when the name is first used: opening the door loads neither Prefect nor torch. Nothing
behind the door goes through it, so it may stand above all the packages that it leads to, ``flows``
and ``registry`` among them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill_tasks.config import DistillConfig, load_config, parse_config
    from distill_tasks.core.errors import InputError, NothingQualifiesError, PotstillError
    from distill_tasks.results.findings import Findings
    from distill_tasks.results.grid import Grid, Trial, first_trials, further_trials
    from distill_tasks.results.run import Run, start_run
    from distill_tasks.results.teacher import identify_teacher
    from distill_tasks.stages.cross_validate import cross_validate
    from distill_tasks.stages.evaluate import evaluate
    from distill_tasks.stages.export import export
    from distill_tasks.stages.halve import halve
    from distill_tasks.stages.label import drop_unanswered, label, teach
    from distill_tasks.stages.measure import measure
    from distill_tasks.stages.plan import fit
    from distill_tasks.stages.prepare import check_config, prepare
    from distill_tasks.stages.prove import prove
    from distill_tasks.stages.report import report
    from distill_tasks.stages.search import search
    from distill_tasks.stages.select import choose, narrow, select
    from distill_tasks.stages.train import train, train_all
    from distill_tasks.stages.tune import learning_curve, tune
    from distill_tasks.stages.vet import vet
    from distill_tasks.tracking.runs import tracked
    from flows.distill import Outcome
    from flows.distill import distill as distil
    from flows.promote import promote as review
    from registry.gate import gate
    from registry.promote import promote
    from registry.register import register

__all__ = [
    "DistillConfig",
    "Findings",
    "Grid",
    "InputError",
    "NothingQualifiesError",
    "Outcome",
    "PotstillError",
    "Run",
    "Trial",
    "check_config",
    "choose",
    "cross_validate",
    "distil",
    "drop_unanswered",
    "evaluate",
    "export",
    "first_trials",
    "fit",
    "further_trials",
    "gate",
    "halve",
    "identify_teacher",
    "label",
    "learning_curve",
    "load_config",
    "measure",
    "narrow",
    "parse_config",
    "prepare",
    "promote",
    "prove",
    "register",
    "report",
    "review",
    "search",
    "select",
    "start_run",
    "teach",
    "tracked",
    "train",
    "train_all",
    "tune",
    "vet",
]

_MODULES = {
    "distill_tasks.config": ("DistillConfig", "load_config", "parse_config"),
    "distill_tasks.core.errors": ("InputError", "NothingQualifiesError", "PotstillError"),
    "distill_tasks.results.findings": ("Findings",),
    "distill_tasks.results.grid": ("Grid", "Trial", "first_trials", "further_trials"),
    "distill_tasks.results.run": ("Run", "start_run"),
    "distill_tasks.results.teacher": ("identify_teacher",),
    "distill_tasks.stages.cross_validate": ("cross_validate",),
    "distill_tasks.stages.evaluate": ("evaluate",),
    "distill_tasks.stages.export": ("export",),
    "distill_tasks.stages.halve": ("halve",),
    "distill_tasks.stages.label": ("drop_unanswered", "label", "teach"),
    "distill_tasks.stages.measure": ("measure",),
    "distill_tasks.stages.plan": ("fit",),
    "distill_tasks.stages.prepare": ("check_config", "prepare"),
    "distill_tasks.stages.prove": ("prove",),
    "distill_tasks.stages.report": ("report",),
    "distill_tasks.stages.search": ("search",),
    "distill_tasks.stages.select": ("choose", "narrow", "select"),
    "distill_tasks.stages.train": ("train", "train_all"),
    "distill_tasks.stages.tune": ("learning_curve", "tune"),
    "distill_tasks.stages.vet": ("vet",),
    "distill_tasks.tracking.runs": ("tracked",),
    "flows.distill": ("Outcome", "distil"),
    "flows.promote": ("review",),
    "registry.gate": ("gate",),
    "registry.promote": ("promote",),
    "registry.register": ("register",),
}
"""Where each public name is defined; `mypy` and editors read the imports above instead."""
_OWN_NAMES = {"distil": "distill", "review": "promote"}
"""The names that flows have in their modules, where these differ."""
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

if not TYPE_CHECKING:  # a typed one would let any name pass

    def __getattr__(name: str) -> Any:
        """Import a public name from where it is defined."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOMES[name]), _OWN_NAMES.get(name, name))
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
