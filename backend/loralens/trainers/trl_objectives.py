"""TRL's other trainers, in a script, on a command line or in a YAML file: what they learn from, and where completions come from.

A script's config names the objective, a command line's command does. A YAML file says it by its name (`dpo.yaml`), or by a key
that only one of the trainers has.

Source: trl 1.16.0 trainer/dpo_config.py, kto_config.py, reward_config.py, grpo_config.py, experimental/orpo/orpo_config.py,
scripts/dpo.py, scripts/kto.py, scripts/grpo.py.
"""

from __future__ import annotations

import re
from typing import Final

from loralens.core.question.objectives import GROUPED, STILL
from loralens.trainers.reading import NOTHING, Reading, is_true

SFT: Final = "sft"
CONFIGS: Final = {
    "DPOConfig": "dpo", "KTOConfig": "kto", "ORPOConfig": "orpo", "RewardConfig": "reward", "GRPOConfig": "grpo", "RLOOConfig": "rloo",
}  # fmt: skip
COMMANDS: Final = ("dpo", "kto", "grpo", "rloo")
"""What `trl` runs from a YAML file beside `sft`."""
KEYS: Final = {
    "grpo": ("num_generations", "max_completion_length", "steps_per_generation", "use_vllm", "reward_funcs", "epsilon"),
    "kto": ("desirable_weight", "undesirable_weight"),
    "dpo": ("precompute_ref_log_probs", "f_divergence_type", "ld_alpha", "sync_ref_model", "truncation_mode"),
}
"""Keys that tell a YAML file's objective; DPO's last, since KTO has some of them too."""
COMPLETION: Final = 256  # max_completion_length
PROMPT: Final = 512  # max_prompt_length, a setting until 1.0; prompts are as long as they are since
UTILIZATION: Final = 0.3  # vllm_gpu_memory_utilization
_NAMED: Final = re.compile(rf"(?<![a-z])({'|'.join(COMMANDS)})(?![a-z])")


def script_objective(r: Reading) -> str:
    """The objective of a script, by the config that it makes."""
    return next((kind for name, kind in CONFIGS.items() if r.setting(f"call.{name}")), SFT)


def file_objective(r: Reading) -> str:
    """The objective of a command line or a YAML file; what names another one without saying which is a blocker."""
    command = r.source.program.removeprefix("trl ")
    if command in COMMANDS:
        return command
    if r.source.kind != "shell":
        if named := _NAMED.search(r.source.name.rsplit("/", 1)[-1].lower()):
            return named[1]
        for kind, keys in KEYS.items():
            if any(r.setting(key) for key in keys):
                return kind
    r.block("another objective than supervised fine-tuning", "beta")
    return SFT


def objective(r: Reading, kind: str, group: str = "") -> None:
    """The objective's words; nothing where it is supervised fine-tuning. `group`: before the config's keywords."""
    if kind == SFT:
        return
    named = next((f"call.{name}" for name, meant in CONFIGS.items() if meant == kind), "")
    r.say("objective", kind, named)
    if kind in STILL and r.method != "full" and r.get(f"{group}disable_dropout") is not False:
        r.say("dropout", 0.0, f"{group}disable_dropout", named)
    if kind in ("dpo", "kto"):
        _reference(r, group)
    elif kind == "orpo":
        _orpo(r, named)
    elif kind in GROUPED:
        _completions(r, group, named, kind)


def _reference(r: Reading, group: str) -> None:
    if r.true(f"{group}precompute_ref_log_probs"):
        r.say("reference", "precomputed", f"{group}precompute_ref_log_probs")
        rows = r.whole(f"{group}precompute_ref_batch_size", None)
        if rows:
            r.say("precompute_batch_size", rows, f"{group}precompute_ref_batch_size")
    elif r.get("trainer.ref_model") not in (*NOTHING, "=None"):
        r.say("reference", "copy", "trainer.ref_model")


def _orpo(r: Reading, named: str) -> None:
    """Whole logits, and the one trainer that still prepares a packed base as PEFT has it."""
    r.say("loss", "full", named)
    if "quantization" in r.words:
        r.near("norms of the packed base are raised to float32", named)


def _completions(r: Reading, group: str, named: str, kind: str) -> None:
    prompt, completion = f"{group}max_prompt_length", f"{group}max_completion_length"
    length = r.whole(completion, None) or COMPLETION
    places: tuple[str, ...] = (f"{group}vllm_max_model_length",)
    whole = r.whole(places[0], None)
    if whole is None or whole <= length:
        whole, places = r.whole("own.length", None), ("own.length",)
    if r.get(prompt) is not None or whole is None or whole <= length:
        whole, places = length + (r.whole(prompt, None) or PROMPT), (prompt, completion)
        if r.get(prompt) is None:
            r.ask(f"how long are the prompts? no key says it: counted as {PROMPT} tokens")
    r.say("labelled_tokens", length, completion, named)
    r.say("sequence_length", whole, *places, named)
    steps = f"{group}steps_per_generation"
    if r.whole(steps, None):
        r.say("rollout_rows", int(r.get(steps)) * int(r.words["micro_batch_size"]), steps)
    if kind == "rloo":
        if r.get(f"{group}beta") == 0.0:
            r.say("reference", "absent", f"{group}beta")
    elif r.get(f"{group}beta") not in (*NOTHING, 0.0):
        r.say("reference", "copy" if r.method == "full" else "adapter", f"{group}beta")
    _engine(r, group, named)


def _engine(r: Reading, group: str, named: str) -> None:
    used, mode = f"{group}use_vllm", f"{group}vllm_mode"
    if not is_true(r.get(used)):
        r.say("rollout", "transformers", named)
    elif r.get(mode) == "server":
        r.say("rollout", "server", used, mode)
    else:
        share, sleep = f"{group}vllm_gpu_memory_utilization", f"{group}vllm_enable_sleep_mode"
        part = r.get(share)
        r.say("rollout", "vllm", used, mode)
        r.say("gpu_memory_utilization", part if isinstance(part, float) else UTILIZATION, share, used)
        r.say("sleep_level", 2 if r.true(sleep) else 0, sleep, used)
