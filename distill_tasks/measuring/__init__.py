"""The latency, the footprint and the cost of a served model.

It imports serving and core.
"""
