"""Predicted against measured: rows of real runs in, a table of errors out."""
