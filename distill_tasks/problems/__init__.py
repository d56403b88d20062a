"""The kinds of problem: one label for each text, or any number of labels.

It imports core alone.
"""
