"""What every room may use: settings, errors, digests, the store, progress, the terminal.

It uses none of the others.
"""
