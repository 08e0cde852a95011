"""Triton kernels; imported only where one is about to run, since Triton is optional."""
