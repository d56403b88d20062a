"""What every package may use: settings, errors, digests, the store, progress, the terminal.

It imports none of the other packages.
"""
