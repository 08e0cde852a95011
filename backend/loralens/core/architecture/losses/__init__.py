"""The losses of a language model by the names of the programs that run them, one module for each origin.

A loss is a function of tape, model, hidden states and call that runs the head and returns the loss; `core.architecture.loss`
has the table. Whoever builds on one takes `rows.labelled` for the positions that count, and the functions here for what the
head makes of them.
"""
