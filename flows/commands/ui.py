"""The command that shows what runs wrote: ui."""

from __future__ import annotations

from distill_tasks.config import load_config
from flows.commands.options import Config
from flows.printing import out


def ui(config: Config) -> None:
    """Serve MLflow's pages on what runs wrote, where `tracking.ui` says, and print their address.

    Example: potstill ui examples/reuters/distill.yaml
    """
    from distill_tasks.tracking.ui import link_runs, serve_ui

    tracking = load_config(config).tracking
    out.say(f"Runs, models and cards: {link_runs(tracking)}")
    if not tracking.is_server:
        out.say("Ctrl-C ends it.")
        serve_ui(tracking)
