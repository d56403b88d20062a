"""What travels between stages, and the plain functions that work with the store.

References are small and travel through Prefect, which is not imported here; nor is MLflow.
"""
