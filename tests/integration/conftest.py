"""Whole flows, kills, servers: what needs more than one package."""

import prefect.main  # noqa: F401  # sets logging up on a stream that no test closes
