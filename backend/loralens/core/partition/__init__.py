"""One rank's part of a model that is cut among GPUs: by width (tensor), by length (context), by depth (pipeline), by expert.

Each file is one way to cut, applied to a whole model before it is walked; they can be applied one after another. What is
shared out by copies or shards of the same model is `core.parallel`'s.
"""
