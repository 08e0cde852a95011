"""Base models that are trained once and kept: safetensors files named by the hash of all that went into them.

    preset = PRESETS["quick"]                               # or "full"; a BasePreset of your own is as good
    model = ensure_base(preset, corpus, state_dir)          # trains when it is not there yet, else loads
    for step in (job := base_steps(preset, corpus, state_dir)): ...   # the same as a generator, for progress bars:
        #   model = yield from base_steps(...)              # its return value is the model
    base_key(preset, corpus)                                # name of the file; is_cached(...) tells whether it is there
    save_tensors(path, tensors, metadata); load_tensors(path)         # atomic write, checked read

The files lie in `<state_dir>/tiny/`. Training keeps a partial state every few seconds, so a killed run goes on where
it was and ends in the same bits. No pickle anywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from loralens.core.errors import InvalidInput
from loralens.lab.tiny.corpus import Corpus
from loralens.lab.tiny.model import TinyConfig, TinyLM
from loralens.lab.tiny.tokenizer import load_tokenizer
from loralens.lab.tiny.train import FinishedStep, TrainConfig, Trainer, encode_text, one_thread

FORMAT = 1
SAVE_EVERY_SECONDS = 5.0


@dataclass(frozen=True)
class BasePreset:
    """A size of base model and how it is trained."""

    name: str
    config: TinyConfig = field(default_factory=TinyConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


PRESETS: dict[str, BasePreset] = {
    # 0.43 M parameters; a quarter of a minute on one core
    "quick": BasePreset(
        "quick",
        TinyConfig(hidden_size=96, intermediate_size=256, num_hidden_layers=3),
        TrainConfig(
            steps=500,
            batch_size=8,
            sequence_length=64,
            learning_rate=1e-2,
            weight_decay=0.1,
            warmup_steps=20,
            decay=True,
        ),
    ),
    # 2.0 M parameters; some two minutes on one core
    "full": BasePreset(
        "full",
        TinyConfig(
            hidden_size=192, intermediate_size=512, num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=6
        ),
        TrainConfig(
            steps=1500,
            batch_size=8,
            sequence_length=64,
            learning_rate=6e-3,
            weight_decay=0.1,
            warmup_steps=30,
            decay=True,
        ),
    ),
}


def default_state_dir() -> Path:
    """The program's state folder: LORALENS_STATE_DIR, or where the settings find one."""
    from loralens.settings import Settings

    return Settings().state_directory()


def base_key(preset: BasePreset, corpus: Corpus) -> str:
    """Name of a base: a digest of sizes, training recipe, text and tokenizer."""
    parts = [FORMAT, asdict(preset.config), asdict(preset.train), corpus.content_hash, load_tokenizer().content_hash]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def base_path(preset: BasePreset, corpus: Corpus, state_dir: Path) -> Path:
    """Path of the trained base."""
    return state_dir / "tiny" / f"base-{base_key(preset, corpus)}.safetensors"


def is_cached(preset: BasePreset, corpus: Corpus, state_dir: Path) -> bool:
    """Whether this base has been trained here before."""
    return base_path(preset, corpus, state_dir).is_file()


def base_steps(preset: BasePreset, corpus: Corpus, state_dir: Path) -> Generator[FinishedStep, None, TinyLM]:
    """Train the base, or yield nothing when it is cached; the generator's return value is the model (`yield from`)."""
    if preset.config.vocab_size != load_tokenizer().vocab_size:
        raise InvalidInput(f"vocab_size must be {load_tokenizer().vocab_size}", field="vocab_size")
    path = base_path(preset, corpus, state_dir)
    # Drawing the first weights must not depend on, or disturb, whatever else the process draws.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(preset.train.seed)
        model = TinyLM(preset.config)
    cached = load_tensors(path)
    if cached is not None:
        model.load_state_dict(cached[0] | _tied(preset.config, cached[0]))
        return model
    partial = path.with_suffix(".partial.safetensors")
    trainer = Trainer(model, encode_text(corpus.text("train")), preset.train)
    kept = load_tensors(partial)
    if kept is not None:
        trainer.load_state(kept[0])
    saved = time.monotonic()
    while trainer.step < preset.train.steps:
        with one_thread():
            step = trainer.advance()
        if time.monotonic() - saved > SAVE_EVERY_SECONDS:
            save_tensors(partial, trainer.state(), {})
            saved = time.monotonic()
        yield step
    metadata = {"config": json.dumps(preset.config.to_hf()), "corpus": corpus.name, "torch": torch.__version__}
    save_tensors(path, base_tensors(model), metadata)
    partial.unlink(missing_ok=True)
    return model


def ensure_base(preset: BasePreset, corpus: Corpus, state_dir: Path | None = None) -> TinyLM:
    """The trained base model, from the cache or trained now."""
    job = base_steps(preset, corpus, state_dir or default_state_dir())
    while True:
        try:
            next(job)
        except StopIteration as done:
            model: TinyLM = done.value
            return model


def base_tensors(model: TinyLM) -> dict[str, Tensor]:
    """The model's state for a file: tied weights once, as transformers' save_pretrained writes them."""
    state = model.state_dict()
    if model.config.tie_word_embeddings:
        del state["lm_head.weight"]
    return state


def _tied(config: TinyConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {"lm_head.weight": state["model.embed_tokens.weight"]} if config.tie_word_embeddings else {}


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file so that readers see the old one or the new one, never a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, draft, metadata=dict(metadata))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """Tensors and metadata of a file of ours; None when there is none or it is damaged (it is then made anew)."""
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except (FileNotFoundError, SafetensorError):
        return None
