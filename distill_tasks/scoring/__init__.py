"""Metrics, intervals, verdicts, calibration and the front, in numpy and scipy alone.

It uses core, problems and data, and knows no model: neither torch nor Prefect nor MLflow.
"""
