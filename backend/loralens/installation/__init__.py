"""The lab's packages (PyTorch and what goes with it), which may arrive while the server already answers.

`state` says how far they are; `run` installs them and says so.
"""
