"""MLflow runs and logged models.

MLflow is imported here, in the registry and in the served wrapper.
"""
