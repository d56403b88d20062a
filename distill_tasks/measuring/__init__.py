"""The stopwatch, the footprint and the price of a model that is served.

It uses serving and core.
"""
