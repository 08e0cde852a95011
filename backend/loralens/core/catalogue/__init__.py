"""Models and GPUs as data: every row says where its numbers come from.

A model is one small JSON file, read only when it is asked for, so that one estimate costs one file.
Names are matched without regard to case, spaces or underscores: an id (`qwen2.5-7b`), a Hugging Face id
(`meta-llama/Llama-2-7b-hf`), the last part of one (`Llama-2-7b-hf`) or an alias (`7B`).
"""

from loralens.core.catalogue._gpus import Gpu, Price, gpu, gpus
from loralens.core.catalogue._models import ModelEntry, model, models
from loralens.core.catalogue._names import closest, key, shown

__all__ = ["Gpu", "ModelEntry", "Price", "closest", "gpu", "gpus", "key", "model", "models", "shown"]
