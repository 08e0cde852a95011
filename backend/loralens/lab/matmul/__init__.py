"""LoRA's product x·Wᵀ + s·(x·Aᵀ)·Bᵀ: every way to compute it, and the layer that uses the best one."""
