"""One module per family of models; see `core.architecture.registry`."""
