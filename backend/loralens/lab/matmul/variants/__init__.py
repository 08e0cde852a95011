"""The ways to compute LoRA's product, each one small class; `catalogue` names them without importing torch."""
