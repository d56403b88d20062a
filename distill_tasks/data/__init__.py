"""Tables, gold labels, splits, soft labels, and the types of the report on them.

It uses core and problems; of scoring nothing.
"""
