"""Tables, gold labels, splits, soft labels, and the types of the report on them.

It imports core and problems, and nothing of scoring.
"""
