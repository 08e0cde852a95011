"""Adapters in other tools' formats: read, written, and read back before they stand."""
