"""Models and GPUs as data: every row says where its numbers come from.

A model is one small JSON file, read only when it is asked for, so that one estimate costs one file.
Names are matched without regard to case, spaces or underscores: an id (`qwen2.5-7b`), a Hugging Face id
(`meta-llama/Llama-2-7b-hf`), the last part of one (`Llama-2-7b-hf`) or an alias (`7B`). Any other name that people type
(`8B`, `llama3`, `unsloth/Qwen3-8B-bnb-4bit`) is read by rules, and the answer says how: see `_resolution`.
A GPU that is not listed is described instead: `custom:24GiB`.
"""

from loralens.core.catalogue._gpus import MARKETS, ON_DEMAND, Gpu, Price, gpus, known_gpu
from loralens.core.catalogue._models import COUNTS, ModelEntry, counts, entry, models
from loralens.core.catalogue._names import closest, key, shown
from loralens.core.catalogue._own_gpu import OWN_VENDOR, is_own, own_gpu
from loralens.core.catalogue._resolution import NameReading, read, refused
from loralens.core.errors import UnknownModel

__all__ = [
    "COUNTS",
    "MARKETS",
    "ON_DEMAND",
    "OWN_VENDOR",
    "Gpu",
    "ModelEntry",
    "NameReading",
    "Price",
    "closest",
    "counts",
    "entry",
    "gpu",
    "gpus",
    "is_own",
    "key",
    "model",
    "models",
    "read",
    "reading",
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


def model(name: str) -> ModelEntry:
    """The model that a name means; `reading` says how a name that the catalogue does not have was understood.

    >>> model("7B").name, model("meta-llama/Llama-3.1-8B-Instruct").name
    ('Llama-2-7B', 'Llama-3.1-8B')

    Raises:
        UnknownModel: see `reading`.
    """
    return entry(reading(name).id)


def reading(name: str) -> NameReading:
    """Which model a name means, how it was read, and how its weights are packed.

    Raises:
        UnknownModel: no rule covers the name; the hint names the nearest models by family and size.
    """
    found = read(name)
    if found is not None:
        return found
    from loralens.core.catalogue._nearest import nearest  # only a mistake pays for it

    why = refused(name) if isinstance(name, str) else None
    near = nearest(name) if isinstance(name, str) else []
    raise UnknownModel(
        f"no model is called {shown(name)}" + (f": {why}" if why else ""),
        field="model",
        hint=(f"did you mean {', '.join(near)}? " if near else "")
        + "`loralens models` lists all names; any other model can be given by its config.json"
        + (", or looked up on the Hub (--from-hub)" if isinstance(name, str) and "/" in name else ""),
    )
