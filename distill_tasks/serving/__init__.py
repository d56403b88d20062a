"""The model as it is served: alone, and as MLflow loads it.

Its files import nothing of this project, for they are logged with every model.
"""
