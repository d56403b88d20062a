"""The verbs: each a plain function, shown as a Prefect task.

No stage imports another one: what travels between them lives in results.
"""
