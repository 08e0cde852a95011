"""The live benchmark: what is measured, how, and what may be concluded from it."""
