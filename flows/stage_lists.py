"""The stages of the flows in their order, as people see them, with their times in the demo."""

from __future__ import annotations

from distill_tasks.core.run_progress import Stage

PREPARE = Stage("prepare", "read the rows", 4)
TEACH = (
    Stage("teach", "make the teacher", 75),
    Stage("label", "ask the teacher", 25),
)
AUDIT = Stage("audit", "audit the teacher", 1)
LABEL = (PREPARE, *TEACH, AUDIT)
"""Those of `potstill label`."""
DISTILL = (
    PREPARE,
    Stage("fit", "fit the grid into the budget", 1),
    *TEACH,
    AUDIT,
    Stage("vet", "check that the teacher is worth it", 1),
    Stage("tune", "choose temperature and α", 6),
    Stage("halve", "stop weak students early", 1),
    Stage("search", "search further students", 1),
    Stage("train", "train the students", 40),
    Stage("export", "export to other runtimes", 12),
    Stage("cross_validate", "compare on further carvings", 1),
    Stage("evaluate", "score the students", 5),
    Stage("measure", "measure latency", 45),
    Stage("narrow", "choose the finalists", 6),
    Stage("train", "train seeds and controls of the finalists", 45),
    Stage("export", "export the other seeds", 1),
    Stage("evaluate", "score the other seeds", 3),
    Stage("select", "order the finalists", 6),
    Stage("prove", "judge the finalists", 8),
    Stage("choose", "choose what keeps its promises", 1),
    Stage("evaluate", "score on held-out", 5),
    Stage("learning_curve", "draw the learning curve", 6),
    Stage("ablate", "train without synthetic rows", 1),
    Stage("report", "write the report", 20),
    Stage("register", "register the chosen student", 3),
    Stage("gate", "compare with the champion", 5),
    Stage("promote", "promote", 1),
    Stage("conclude", "add the gate's answer to the report", 3),
    Stage("describe", "write the card", 1),
)
"""Those of `potstill run`."""
