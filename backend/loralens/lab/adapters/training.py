"""Train the hub: one small base model, then one adapter for each task. A generator, so that a job can stream it.

The base learns English prose and Python code (what every Python installation carries) and the wording of the requests,
but none of the answers. Each adapter then learns one kind of answer on a frozen base. Everything is kept in a folder
named after a hash of all that went in, so a second call reads instead of training.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file

from loralens.core.errors import InvalidInput
from loralens.lab.adapters.adapter import assemble
from loralens.lab.adapters.base import TinyBase
from loralens.lab.adapters.base_files import BASE_FILE
from loralens.lab.adapters.config import AdapterConfig
from loralens.lab.adapters.files import write_adapter
from loralens.lab.adapters.hub import Hub
from loralens.lab.adapters.scratch import scratch_folder
from loralens.lab.adapters.tasks import TASKS, Facts, Task, grammar_hash, held_out_facts, prompt_for, training_facts
from loralens.lab.tiny.corpus import code_corpus, prose_corpus
from loralens.lab.tiny.lora import adapter_state, inject_lora
from loralens.lab.tiny.model import LINEAR_NAMES, TinyConfig, TinyLM, parameter_count
from loralens.lab.tiny.tokenizer import load_tokenizer
from loralens.lab.tiny.train import TrainConfig, Trainer

FORMAT: Final = 2
"""Raised whenever this module would train something else from the same settings."""


@dataclass(frozen=True, slots=True)
class HubRecipe:
    """All that decides what is trained."""

    model: TinyConfig
    base_steps: int
    adapter_steps: int
    rank: int = 8
    alpha: float = 16
    target_modules: tuple[str, ...] = LINEAR_NAMES
    base_batch: int = 8
    adapter_batch: int = 8
    sequence_length: int = 128
    base_rate: float = 3e-3
    adapter_rate: float = 1e-2
    request_share: float = 0.75
    seed: int = 0
    text_characters: int = 400_000
    check_requests: int = 20

    def content_hash(self) -> str:
        """Name of the cache folder: recipe, texts, tokenizer and grammar."""
        parts = [FORMAT, asdict(self), grammar_hash(), load_tokenizer().content_hash, prose_corpus().content_hash]
        parts.append(code_corpus().content_hash)
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


_SMALL: Final = TinyConfig(hidden_size=96, intermediate_size=256, num_hidden_layers=3)

PRESETS: Final = {
    "standard": HubRecipe(_SMALL, base_steps=700, adapter_steps=300),
    "quick": HubRecipe(_SMALL, base_steps=150, adapter_steps=100),
    "test": HubRecipe(
        TinyConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1
        ),
        base_steps=8,
        adapter_steps=8,
        rank=4,
        alpha=8,
        sequence_length=64,
        text_characters=20_000,
        check_requests=2,
        target_modules=("q_proj", "v_proj"),
    ),
}


def recipe_named(preset: str) -> HubRecipe:
    """The recipe of a preset: standard (minutes), quick (a minute, learns the form) or test (seconds)."""
    if preset not in PRESETS:
        raise InvalidInput(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}", field="preset")
    return PRESETS[preset]


def hub_folder(root: Path, recipe: HubRecipe) -> Path:
    """Where the trained hub of a recipe lies below `root`."""
    return root / recipe.content_hash()


def is_trained(folder: Path) -> bool:
    """Whether the folder holds a finished hub (it is renamed into place as a whole)."""
    return (folder / "hub.json").is_file()


def train(root: Path, recipe: HubRecipe) -> Iterator[dict[str, object]]:
    """Train base and adapters unless they are there; yields progress events and at the end the result.

    Events: {"type": "progress", "stage", "step", "steps", "loss"} and {"type": "result", "folder", "cached", …}.
    """
    folder = hub_folder(root, recipe)
    cached = is_trained(folder)
    if not cached:
        threads = torch.get_num_threads()
        # One thread: the same bits whatever the number of cores, and at these sizes hardly slower than two.
        torch.set_num_threads(1)
        try:
            with scratch_folder(root, "hub") as staging:
                yield from _train_into(staging, recipe)
                if not is_trained(folder):  # another process may have been as fast
                    staging.rename(folder)
        finally:
            torch.set_num_threads(threads)
    yield {"type": "result", "cached": cached, **json.loads((folder / "hub.json").read_text())}


def _train_into(folder: Path, recipe: HubRecipe) -> Iterator[dict[str, object]]:
    torch.manual_seed(recipe.seed)
    base = TinyLM(recipe.model)
    config = TrainConfig(
        steps=recipe.base_steps,
        batch_size=recipe.base_batch,
        sequence_length=recipe.sequence_length,
        learning_rate=recipe.base_rate,
        decay=True,
        seed=recipe.seed,
        mix=recipe.request_share,
    )
    yield from _run(Trainer(base, _general_tokens(recipe.text_characters), config, second=_request_tokens()), "base")
    state = {name: tensor.detach().clone() for name, tensor in base.state_dict().items()}
    if recipe.model.tie_word_embeddings:
        del state["lm_head.weight"]
    save_file(state, folder / BASE_FILE, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(recipe.model.to_hf(), indent=2) + "\n")
    losses = {}
    for index, task in enumerate(TASKS):
        last = None
        for event in _train_adapter(base, task, index, recipe, folder / "adapters" / task.name):
            yield event
            last = event
        losses[task.name] = last["loss"] if last else None
    right = dict.fromkeys(losses, 0)
    for done, names in enumerate(_right_answers(folder, recipe.check_requests), 1):
        for name in names:
            right[name] += 1
        yield {"type": "progress", "stage": "check", "step": done, "steps": recipe.check_requests, "loss": None}
    (folder / "hub.json").write_text(
        json.dumps(
            {
                "hash": recipe.content_hash(),
                "parameters": parameter_count(base),
                "adapters": [task.name for task in TASKS],
                "final_losses": losses,
                "held_out": {"requests": recipe.check_requests, "right": right},
            }
        )
    )


def _right_answers(folder: Path, count: int) -> Iterator[list[str]]:
    """For each of `count` requests that were kept out of training, the adapters whose answer is right to the letter."""
    hub = Hub(TinyBase(folder))
    for task in TASKS:
        hub.load(task.name, folder / "adapters" / task.name)
    names = [task.name for task in TASKS]
    for facts in held_out_facts()[:count]:
        texts = dict.fromkeys(names, "")
        for token in hub.stream(prompt_for(facts.request), names, tokens=80):
            texts[str(token.adapter)] += token.text
        yield [task.name for task in TASKS if texts[task.name] == f" {task.answer(facts)}"]


def _train_adapter(
    base: TinyLM, task: Task, index: int, recipe: HubRecipe, folder: Path
) -> Iterator[dict[str, object]]:
    model = copy.deepcopy(base)
    inject_lora(
        model, rank=recipe.rank, alpha=recipe.alpha, targets=recipe.target_modules, seed=recipe.seed + 1 + index
    )
    config = TrainConfig(
        steps=recipe.adapter_steps,
        batch_size=recipe.adapter_batch,
        sequence_length=recipe.sequence_length,
        learning_rate=recipe.adapter_rate,
        decay=True,
        seed=recipe.seed + 1 + index,
    )
    yield from _run(Trainer(model, task_tokens(task, training_facts()), config), task.name)
    written = AdapterConfig(
        recipe.rank,
        recipe.alpha,
        tuple(sorted(recipe.target_modules)),
        base_model="loralens-tiny",
        handed_on='{"inference_mode": true}',
    )
    write_adapter(assemble(written, adapter_state(model)), folder)


def _run(trainer: Trainer, stage: str) -> Iterator[dict[str, object]]:
    steps = trainer.config.steps
    for step in trainer.steps():
        if step.step % 10 == 0 or step.step == steps:
            yield {"type": "progress", "stage": stage, "step": step.step, "steps": steps, "loss": round(step.loss, 4)}


def task_tokens(task: Task, facts: list[Facts]) -> torch.Tensor:
    """Requests with this task's answers, each ended by end-of-text. Shape (count,) int64."""
    tokenizer = load_tokenizer()
    ids: list[int] = []
    for each in facts:
        ids += [*tokenizer.encode(f"{prompt_for(each.request)} {task.answer(each)}"), tokenizer.eos_id]
    return torch.tensor(ids, dtype=torch.int64)


def _request_tokens() -> torch.Tensor:
    """Requests that are answered by repeating them: the base learns their words and to look back, no task."""
    tokenizer = load_tokenizer()
    ids: list[int] = []
    for each in training_facts():
        ids += [*tokenizer.encode(f"{prompt_for(each.request)} {each.request}"), tokenizer.eos_id]
    return torch.tensor(ids, dtype=torch.int64)


def _general_tokens(characters: int) -> torch.Tensor:
    """As much prose as code, `characters` of each at most."""
    tokenizer = load_tokenizer()
    texts = [corpus.text("train")[:characters] for corpus in (prose_corpus(), code_corpus())]
    return torch.tensor([token for text in texts for token in tokenizer.encode(text)], dtype=torch.int64)
