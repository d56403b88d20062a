"""The model as it is served, on its own or loaded by MLflow.

These files import nothing of this project, because they are logged with every model.
"""
