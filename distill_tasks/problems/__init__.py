"""What comes out of a model: one label for each text, or any number of them.

It uses core alone.
"""
