"""Large language models: prompts, label codes, distributions over classes, an endpoint's client."""
