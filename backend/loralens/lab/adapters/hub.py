r"""One base model, many adapters: load, switch, generate, and prove that the base is untouched.

    hub = Hub(TinyBase(folder))
    hub.load("sql_query", folder / "adapters" / "sql_query")
    hub.switch("sql_query")                                   # one write, whatever the number of layers
    hub.generate("Request: …\nAnswer:")                       # by the active adapter
    hub.generate("Request: …\nAnswer:", adapter="translation")  # by another one, without switching
    hub.storage(), hub.verify("Request: …\nAnswer:")

All methods may be called from any thread. A request keeps the adapter with which it began: its slot is pinned until it
ends, and a slot is written only when nobody reads it.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor

from loralens.core.errors import InvalidInput, NotFound
from loralens.lab.adapters.adapter import Adapter
from loralens.lab.adapters.base import BaseModel, base_tensors, target_layers
from loralens.lab.adapters.copies import copied, needs_copies
from loralens.lab.adapters.files import read_folder, weights_bytes, write_adapter
from loralens.lab.adapters.fitting import check_fits
from loralens.lab.adapters.generation import Token, stream_tokens
from loralens.lab.adapters.hub_answers import DiskUse, Loaded, Switched, Verification
from loralens.lab.matmul.layer import LoraLinear, put_adapter
from loralens.lab.matmul.table import BASE, AdapterTable, Rows, Selection, using
from loralens.lab.tensors import hash_tensors

WAYS: Final = ("index", "pointer", "file", "merge")
MAX_ADAPTERS: Final = 256
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}", re.ASCII)


class Hub:
    """A base model whose adapters are switched."""

    def __init__(self, base: BaseModel) -> None:
        self.base = base
        self.table = AdapterTable()
        self._linears = target_layers(base.module)
        self._tensors = base_tensors(base.module)
        self._base_parameters = tuple(base.module.parameters())
        self._layers: dict[str, LoraLinear] = {}
        self._loaded: dict[str, Loaded] = {}
        self._adapters: dict[str, Adapter] = {}
        self._pins: Counter[int] = Counter()
        self._lock = threading.RLock()
        self._sha256 = hash_tensors(self._tensors)

    # What is there

    @property
    def adapters(self) -> tuple[Loaded, ...]:
        """The loaded adapters, in the order of loading."""
        with self._lock:
            return tuple(self._loaded.values())

    @property
    def active(self) -> str | None:
        """Name of the active adapter, None for the base alone."""
        return self.table.selection.adapter

    @property
    def way(self) -> str:
        """How the active adapter was switched to."""
        return self.table.selection.way

    @property
    def layers(self) -> Mapping[str, LoraLinear]:
        """Layers that carry at least one adapter, by full name."""
        return self._layers

    def adapter(self, name: str) -> Adapter:
        """The factors of a loaded adapter."""
        self._find(name)
        return self._adapters[name]

    def base_sha256(self) -> str:
        """Hash of the base weights' bytes as they are now."""
        return hash_tensors(self._tensors)

    @property
    def parameters(self) -> int:
        """Parameters of the base, tied weights once (buffers are left out)."""
        return sum(parameter.numel() for parameter in dict.fromkeys(self._base_parameters))

    @property
    def loaded_sha256(self) -> str:
        """Hash of the base weights' bytes when the hub was made; `base_sha256` computes the present one."""
        return self._sha256

    # Load, unload, save

    def load(self, name: str, source: Adapter | str | os.PathLike[str]) -> Loaded:
        """Load an adapter under a name, from memory or from its folder; a name that is taken is replaced.

        Raises: `InvalidInput` when it does not fit the base; the hub is then as before.
        """
        if not _NAME.fullmatch(name):
            raise InvalidInput(
                f"{name[:80]!r} is not a name for an adapter: 1 to 64 letters, digits, '_', '-' and '.'", field="name"
            )
        folder = None if isinstance(source, Adapter) else os.fspath(source)
        adapter, size = (source, None) if isinstance(source, Adapter) else read_folder(source)
        check_fits(adapter, self._linears, self.base.name)
        with self._lock:
            if name not in self._loaded and len(self._loaded) >= MAX_ADAPTERS:
                raise InvalidInput(f"the hub holds {MAX_ADAPTERS} adapters already", hint="unload one first")
            # A new place: requests that run keep what they have begun with.
            slot = self.table.place(name, pinned={slot for slot, pins in self._pins.items() if pins})
            for module in adapter.factors.keys() - self._layers.keys():
                self._wrap(module)
            alone = needs_copies(adapter)
            put_adapter(self._layers, slot, {} if alone else adapter.factors)
            if alone:
                self.table.prepare(name, copied(name, adapter, self._layers))
            if size is None:
                size = len(weights_bytes(adapter)) + len(adapter.config.to_json())
            loaded = Loaded(
                name=name,
                slot=slot,
                rank=adapter.config.rank,
                alpha=adapter.config.alpha,
                target_modules=adapter.config.target_modules,
                parameters=adapter.parameters,
                tensor_bytes=adapter.tensor_bytes,
                file_bytes=size,
                folder=folder,
            )
            self._loaded[name] = loaded
            self._adapters[name] = adapter
            if self.active == name:
                self.activate(name)
            return loaded

    def unload(self, name: str) -> None:
        """Forget an adapter; running requests that use it finish first. The base becomes active if it was."""
        with self._lock:
            self._find(name)
            if self.active == name:
                self.activate(None)
            self.table.remove(name)
            del self._loaded[name], self._adapters[name]

    def save(self, name: str, folder: str | os.PathLike[str]) -> int:
        """Write a loaded adapter in PEFT's format; returns the bytes on disk."""
        return write_adapter(self.adapter(name), folder)

    # Switch

    def activate(self, name: str | None) -> None:
        """The bare switch by index: look up the prepared selection, write it."""
        self.table.selection = self.table.prepared(name)

    def switch(self, name: str | None, way: str = "index") -> Switched:
        """Make an adapter (or with None the base) the one that requests without a choice of their own get.

        Ways: index, one write; pointer, factor pairs handed to each layer; file, read again from its folder, then
        index; merge, a merged copy of each adapted weight (the base itself is never written). DoRA, and LoRA with a
        bias on lora_B, have such copies from loading on, and every way switches to them.
        """
        started = time.perf_counter()
        if way not in WAYS:
            raise InvalidInput(f"way must be one of {', '.join(WAYS)}, got {way[:40]!r}", field="way")
        with self._lock:
            loaded = None if name is None else self._find(name)
            if loaded is None:
                self.activate(None)
            elif way == "index" or (self._alone(loaded.name) and way != "file"):
                self.activate(loaded.name)
            elif way == "file":
                if loaded.folder is None:
                    raise InvalidInput(f"{loaded.name} was not loaded from a folder", field="way", hint="save it first")
                slot = self.load(loaded.name, loaded.folder).slot
                alone = self._alone(loaded.name)
                self.table.selection = self.table.prepared(name) if alone else Selection(name, "file", index=slot)
            else:
                self.table.selection = self.pointers(loaded.name) if way == "pointer" else self.merged(loaded.name)
        return Switched(name, self.way, time.perf_counter() - started)

    def pointers(self, name: str) -> Selection:
        """A selection that hands each layer its factor pair."""
        slot = self._find(name).slot
        return Selection(
            name,
            "pointer",
            pairs={n: pair for n, layer in self._layers.items() if (pair := layer.pair(slot)) is not None},
        )

    @torch.no_grad()
    def merged(self, name: str) -> Selection:
        """A selection with merged copies W + scaling · BA of the adapted weights; exact up to one rounding."""
        slot = self._find(name).slot
        if self._alone(name):
            return self.table.prepared(name)
        weights = {}
        for module, layer in self._layers.items():
            pair = layer.pair(slot)
            if pair is not None:
                weight = layer.weight
                if not weight.is_floating_point():
                    raise InvalidInput("a quantized base cannot be merged here", field="way", hint="use index")
                lora_a, lora_bt, scaling = pair
                weights[module] = torch.addmm(weight, lora_bt.t(), lora_a, alpha=scaling)
        return Selection(name, "merge", weights=weights)

    # Run

    def stream(
        self,
        prompt: str,
        adapters: Sequence[str | None] | None = None,
        *,
        tokens: int = 48,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[Token]:
        """Continue a prompt, token by token: one row for each adapter named (None: the base), all in one batch.

        Without `adapters`, one row by the active adapter. What is switched or unloaded meanwhile changes nothing here.
        """
        with self._pinned(adapters) as (names, selection):
            yield from stream_tokens(
                self.base, prompt, names, selection, tokens=tokens, temperature=temperature, seed=seed
            )

    def generate(self, prompt: str, adapter: str | None = "", *, tokens: int = 48) -> str:
        """The whole continuation of a prompt by one adapter (None: the base; left out: the active one)."""
        chosen = None if adapter == "" else [adapter]
        return "".join(token.text for token in self.stream(prompt, chosen, tokens=tokens))

    @torch.no_grad()
    def logits(self, prompt: str, adapter: str | None = "") -> Tensor:
        """Next-token logits after a prompt, (vocabulary,): the number to compare bit for bit."""
        with self._pinned(None if adapter == "" else [adapter]) as (_, selection), using(selection):
            return self.base.step(torch.tensor([self.base.encode(prompt)]), None)[0][0].clone()

    # Prove

    def storage(self) -> DiskUse:
        """Bytes on disk of base and adapters, and of the same number of full models."""
        base, sizes = self.base.stored_bytes(), {loaded.name: loaded.file_bytes for loaded in self.adapters}
        return DiskUse(base, sizes, base + sum(sizes.values()), base * len(sizes))

    def verify(self, prompt: str) -> Verification:
        """Do the adapters answer differently, does each return bit for bit, are the base's bytes unchanged?"""
        names: list[str | None] = [None, *(loaded.name for loaded in self.adapters)]
        first = {name: self.logits(prompt, name) for name in names}
        again = {name: self.logits(prompt, name) for name in reversed(names)}
        distinct = {logits.numpy(force=True).tobytes() for name, logits in first.items() if name is not None}
        sha256 = self.base_sha256()
        return Verification(
            distinct_outputs=len(distinct),
            adapters=len(names) - 1,
            returns_bit_for_bit=all(torch.equal(first[name], again[name]) for name in names),
            base_unchanged=sha256 == self._sha256,
            base_sha256=sha256,
        )

    # Inside

    def _find(self, name: str) -> Loaded:
        loaded = self._loaded.get(name)
        if loaded is None:
            known = ", ".join(self._loaded) or "none"
            raise NotFound(f"no adapter {name[:80]!r} is loaded", field="adapter", hint=f"loaded: {known}")
        return loaded

    def _alone(self, name: str) -> bool:
        """Whether it has weights of its own."""
        return needs_copies(self._adapters[name])

    def _wrap(self, module: str) -> LoraLinear:
        layer = LoraLinear.over(self._linears[module], table=self.table, name=module)
        parent, _, name = module.rpartition(".")
        setattr(self.base.module.get_submodule(parent), name, layer)
        self._layers[module] = layer
        return layer

    @contextmanager
    def _pinned(self, adapters: Sequence[str | None] | None) -> Iterator[tuple[list[str | None], Selection]]:
        with self._lock:
            if adapters is None:
                selection = self.table.selection
                names: list[str | None] = [selection.adapter]
                if selection.adapter is not None and selection.adapter not in self._loaded:
                    # Unloaded between its look-up and its activation by another thread.
                    names, selection = [None], self.table.prepared(None)
            else:
                names = list(adapters)
                slots = tuple(BASE if name is None else self._find(name).slot for name in names)
                same = len(set(slots)) == 1
                alone = next((name for name in names if name is not None and self._alone(name)), None)
                if alone is not None and not same:
                    raise InvalidInput(f"{alone} has DoRA or biases: it is served by weights of its own and shares no batch",
                                       field="adapters", hint="ask it in a request of its own")  # fmt: skip
                if alone is not None:
                    selection = self.table.prepared(alone)
                else:
                    selection = Selection(index=slots[0]) if same else Selection(rows=Rows(slots))
            pins = [self._find(name).slot for name in names if name is not None]
            self._pins.update(pins)
        try:
            yield names, selection
        finally:
            with self._lock:
                self._pins.subtract(pins)
