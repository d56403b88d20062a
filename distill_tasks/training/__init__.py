"""The engine: trainer, losses, objective, hidden states, checkpoints, tokens, devices.

It uses serving and what is below, and knows no family of students and no kind of teacher.
"""
