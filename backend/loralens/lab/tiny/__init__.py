"""A small real decoder-only transformer with its tokenizer, text, training, checkpoints and LoRA.

Shared by the forgetting experiment and the adapter hub. See the head of each module for how to call it:
`model`, `tokenizer`, `corpus`, `train`, `checkpoints`, `lora`.
"""
