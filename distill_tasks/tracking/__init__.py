"""MLflow runs and logged models.

MLflow is imported only here, in the registry and in the served wrapper.
"""
