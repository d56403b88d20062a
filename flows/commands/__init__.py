"""The commands of `potstill`, a module for each kind; what is heavy they import when they run."""
