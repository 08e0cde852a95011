"""Models and GPUs as data: every row says where its numbers come from.

A model is one small JSON file, read only when it is asked for, so that one estimate costs one file.
Names are matched without regard to case, spaces or underscores: an id (`qwen2.5-7b`), a Hugging Face id
(`meta-llama/Llama-2-7b-hf`), the last part of one (`Llama-2-7b-hf`) or an alias (`7B`).
A GPU that is not listed is described instead: `custom:24GiB`.
"""

from loralens.core.catalogue._gpus import Gpu, Price, gpus, known_gpu
from loralens.core.catalogue._models import ModelEntry, model, models
from loralens.core.catalogue._names import closest, key, shown
from loralens.core.catalogue._own_gpu import OWN_VENDOR, is_own, own_gpu

__all__ = [
    "OWN_VENDOR",
    "Gpu",
    "ModelEntry",
    "Price",
    "closest",
    "gpu",
    "gpus",
    "is_own",
    "key",
    "model",
    "models",
    "shown",
]


def gpu(name: str) -> Gpu:
    """The GPU that a name means: an id or alias of the catalogue, or the description of one's own.

    >>> gpu("RTX 4090").id, gpu("custom:24GiB").memory_bytes
    ('rtx-4090', 25769803776)

    Raises:
        UnknownGpu: nothing has this name; the hint lists names that look like it.
        InvalidInput: a description that cannot be read.
    """
    return own_gpu(name) if isinstance(name, str) and is_own(name) else known_gpu(name)
