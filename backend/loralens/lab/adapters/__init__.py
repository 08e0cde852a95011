"""Adapters for real: one base model, many adapters that are created, saved, loaded, switched, inspected and resized."""
