"""A plan from traces, for a model that no family here describes.

The step is run at a few settings and aligned operator by operator; each storage's bytes become a polynomial of batch, length
and rank. What does not fit at a further setting is refused, not smoothed.
"""
