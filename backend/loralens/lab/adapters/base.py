"""Base models a hub can carry: our own tiny one, or any local Hugging Face causal language model.

Both answer the same three questions: text to ids and back, one step of generation with a cache, and reloading.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from loralens.core.errors import DependencyMissing, InvalidInput
from loralens.extras import how_to_install
from loralens.lab.adapters.base_files import BASE_FILE, load_base
from loralens.lab.tiny.tokenizer import Tokenizer, load_tokenizer


class BaseModel(Protocol):
    """What a hub needs of its base."""

    name: str
    module: nn.Module
    end_ids: frozenset[int]
    positions: int

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; an unfinished character shows as U+FFFD at the end."""
        ...

    def step(self, ids: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Logits of the last position, (batch, vocabulary), and the grown cache."""
        ...

    def stored_bytes(self) -> int:
        """Size of the model's weight files on disk."""
        ...

    def reload(self) -> None:
        """Read the weights from disk into a model of its own, as a switch between full models would."""
        ...


class TinyBase:
    """The base that `training.train` made."""

    def __init__(self, folder: Path) -> None:
        self.name = "loralens-tiny"
        self._folder = folder
        self.module: nn.Module = load_base(folder)
        self._tokenizer: Tokenizer = load_tokenizer()
        self.end_ids = frozenset({self._tokenizer.eos_id})
        self.positions = int(self.module.config.max_position_embeddings)

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids)

    def step(self, ids: Tensor, cache: Any) -> tuple[Tensor, Any]:
        logits, cache = self.module.step(ids, cache)  # type: ignore[operator]
        return logits, cache

    def stored_bytes(self) -> int:
        return (self._folder / BASE_FILE).stat().st_size

    def reload(self) -> None:
        load_base(self._folder)


class LocalBase:
    """A Hugging Face model in a local folder. Never downloads, never runs code from the folder."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self._folder = folder
        self._files = sorted(folder.glob("*.safetensors"))
        if not (folder / "config.json").is_file() or not self._files:
            raise InvalidInput(
                f"{folder.name} is not a model folder with config.json and safetensors weights",
                field="model",
                hint="pickled weights (.bin) are not read",
            )
        try:
            import transformers
        except ImportError:
            raise DependencyMissing(
                "reading Hugging Face models needs the package transformers", hint=how_to_install("trace")
            ) from None
        self._load: Any = lambda: transformers.AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype="auto"
        )
        try:
            self.module: nn.Module = self._load().eval().requires_grad_(False)
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as error:
            raise InvalidInput(f"{folder.name} cannot be loaded: {str(error)[:300]}", field="model") from error
        end = self.module.config.eos_token_id
        self.end_ids = frozenset(end if isinstance(end, list) else [] if end is None else [end])
        self.positions = int(getattr(self.module.config, "max_position_embeddings", 2048))

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def step(self, ids: Tensor, cache: Any) -> tuple[Tensor, Any]:
        output = self.module(input_ids=ids, past_key_values=cache, use_cache=True)
        return output.logits[:, -1], output.past_key_values

    def stored_bytes(self) -> int:
        return sum(path.stat().st_size for path in self._files)

    def reload(self) -> None:
        self._load()


def target_layers(module: nn.Module) -> dict[str, nn.Linear]:
    """Linear layers by full name: the places where an adapter can go."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}


def base_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The base's own tensors by name, each storage once; taken before any layer is wrapped."""
    seen: set[int] = set()
    tensors = {}
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            tensors[name] = tensor
    return dict(sorted(tensors.items()))
