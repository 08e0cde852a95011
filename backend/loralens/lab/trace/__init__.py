"""The second, independent method: run the real model, the real PEFT and the real optimizer on fake CUDA tensors.

Nothing is allocated and no GPU is needed; every storage is followed from its birth to its release, so the answer is
what the caching allocator would have been asked for. Start with `loralens.lab.trace.case.trace`.
"""
