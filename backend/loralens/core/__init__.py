"""Pure computation: no torch, no web framework, no network."""
