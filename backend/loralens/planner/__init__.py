"""What should I do: the largest step that fits, the changes that make it fit, sweeps, time and cost.

Everything here asks the core; it holds no formula of memory of its own.
"""
