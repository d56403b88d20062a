"""The engine: trainer, losses, objective, hidden states, checkpoints, tokens, devices.

It imports serving and the packages below it, and knows no student family or kind of teacher.
"""
