"""The HTTP surface: routes that ask the core, one translation of errors, and the built page."""
