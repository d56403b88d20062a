"""How a distillation is done: verbs are stages, nouns are the library."""
