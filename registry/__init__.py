"""The only code that touches the MLflow Model Registry."""
