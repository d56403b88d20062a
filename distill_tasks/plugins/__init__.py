"""What MLflow finds by entry point: useful in any project, without our flows.

MLflow imports `run_context` and `evaluator` with itself, so these two import nothing heavy.
"""
