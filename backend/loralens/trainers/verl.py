"""verl's configs: the overrides of a command, or the YAML that they are laid over.

**Source:** verl 0.7.0 trainer/config/*.yaml, workers/fsdp_workers.py, trainer/ppo/ray_trainer.py.
"""

from __future__ import annotations

from typing import Final

from loralens.core.question.objectives import ON_THIS_CARD
from loralens.trainers.common import adapter, dtype, targets
from loralens.trainers.reading import NOTHING, Reading, is_true

ACTOR: Final = "actor_rollout_ref.actor"
MODEL: Final = "actor_rollout_ref.model"
ROLLOUT: Final = "actor_rollout_ref.rollout"
CRITIC: Final = "critic"
ESTIMATOR: Final = "algorithm.adv_estimator"
WITHOUT_CRITIC: Final = (
    "grpo", "grpo_passk", "grpo_vectorized", "rloo", "rloo_vectorized", "reinforce_plus_plus", "reinforce_plus_plus_baseline",
    "remax", "opo", "gpg",
)  # fmt: skip
ENGINES: Final = {"vllm": "vllm", "sglang": "sglang", "hf": "transformers"}
WITHOUT_ITSELF: Final = ("rloo", "rloo_vectorized")
"""Estimators that compare a completion with the others of its prompt."""
PROMPT = RESPONSE = 512
MINI_BATCH: Final = 256
PACKED: Final = 16_384


def read_verl(r: Reading) -> None:
    """Policy, engine, and what stands beside them; keys are those of `ppo_trainer.yaml`."""
    r.model, r.model_setting = r.get(f"{MODEL}.path"), r.setting(f"{MODEL}.path")
    estimator = str(r.get(ESTIMATOR) or "gae")
    kind = "rloo" if estimator in WITHOUT_ITSELF else "grpo" if estimator in WITHOUT_CRITIC else "ppo"
    if estimator not in (*WITHOUT_CRITIC, "gae"):
        r.near(f"the advantage estimator {estimator[:40]} is not known: counted with a value model", ESTIMATOR)
    r.say("objective", kind, ESTIMATOR)
    if r.whole(f"{MODEL}.lora_rank", 0):
        r.train("lora", f"{MODEL}.lora_rank")
        adapter(r, rank=f"{MODEL}.lora_rank", alpha=f"{MODEL}.lora_alpha", dropout="", saved="")
        targets(r, f"{MODEL}.target_modules")
    named = str(r.get("config_name") or "ppo_trainer")
    if "megatron" in named:
        r.block("Megatron's workers are not modelled for this objective", "config_name")
    elif named.removesuffix(".yaml") != "ppo_trainer":
        r.near("the keys of the config that it names are not read", "config_name")
    _lengths(r)
    _engine(r)
    _reference(r, kind)
    _policy(r)
    _scoring(r)
    if kind == "ppo":
        _critic(r)
    if is_true(r.get("reward_model.enable")):
        r.say("reward_model", r.get("reward_model.model.path"), "reward_model.model.path", "reward_model.enable")


def _lengths(r: Reading) -> None:
    prompt, response = "data.max_prompt_length", "data.max_response_length"
    completion = r.whole(response, RESPONSE) or RESPONSE
    length = (r.whole(prompt, PROMPT) or PROMPT) + completion
    r.say("sequence_length", length, prompt, response)
    r.say("labelled_tokens", completion, response)
    gpus = (r.whole("trainer.n_gpus_per_node", None) or r.gpus or 1) * (r.whole("trainer.nnodes", 1) or 1)
    r.say("gpus", gpus, "trainer.n_gpus_per_node", "trainer.nnodes")
    many = r.whole(f"{ROLLOUT}.n", 1) or 1
    rows = (r.whole("data.train_batch_size", 1024) or 1024) * many // gpus
    r.say("rollout_rows", max(1, rows), "data.train_batch_size", f"{ROLLOUT}.n")
    each, packed = f"{ACTOR}.ppo_micro_batch_size_per_gpu", f"{ACTOR}.ppo_max_token_len_per_gpu"
    micro = r.whole(each, None)
    if is_true(r.get(f"{ACTOR}.use_dynamic_bsz")) or micro is None:
        micro = max(1, (r.whole(packed, PACKED) or PACKED) // length)
        r.say("micro_batch_size", micro, packed, f"{ACTOR}.use_dynamic_bsz")
        r.near(
            "rows of a micro-batch follow from its tokens: counted as rows of full length", f"{ACTOR}.use_dynamic_bsz"
        )
        if r.setting(each) is None and not is_true(r.get(f"{ACTOR}.use_dynamic_bsz")):
            r.ask(f"{each} is not said: counted as {micro} rows")
    else:
        r.say("micro_batch_size", micro, each)
    mini = f"{ACTOR}.ppo_mini_batch_size"
    own = (r.whole(mini, MINI_BATCH) or MINI_BATCH) * many // gpus
    r.say("gradient_accumulation_steps", max(1, own // micro), mini, each)


OWN_SHARES: Final = {"sglang": "sglang.mem_fraction_static", "vllm": "vllm.gpu_memory_utilization"}


def _engine(r: Reading) -> None:
    name = f"{ROLLOUT}.name"
    engine = str(r.get(name) or "vllm")
    r.say("rollout", ENGINES.get(engine, "vllm"), name)
    if engine not in ENGINES:
        r.near(f"the engine {engine[:20]} is not modelled: counted as vLLM", name)
    if engine == "hf":
        return
    share, frees = f"{ROLLOUT}.gpu_memory_utilization", f"{ROLLOUT}.free_cache_engine"
    own = f"{ROLLOUT}.engine_kwargs.{OWN_SHARES.get(engine, '')}"  # goes over the other: they are the engine's own arguments
    part = r.get(own) if isinstance(r.get(own), (int, float)) else r.get(share)
    share = own if isinstance(r.get(own), (int, float)) else share
    part = part if isinstance(part, (int, float)) else 0.5
    if engine == "sglang":
        r.say("mem_fraction_static", part, share)
        r.say("memory_release", "nothing" if r.get(frees) is False else "weights", frees)
    else:
        r.say("gpu_memory_utilization", part, share)
        r.say("sleep_level", 0 if r.get(frees) is False else 1, frees)
    parts = f"{ROLLOUT}.tensor_model_parallel_size"
    if (r.whole(parts, 1) or 1) > 1:
        r.say("rollout_tp", r.whole(parts, 1), parts)


def _reference(r: Reading, kind: str) -> None:
    keys = (f"{ACTOR}.use_kl_loss", "algorithm.use_kl_in_reward")
    if any(is_true(r.get(key)) for key in keys):
        r.say("reference", "copy" if r.method == "full" else "adapter", *keys)
        if r.method == "full":
            r.near(
                "the reference's weights wait on the host and come a layer at a time: counted on the card",
                *(key for key in keys if is_true(r.get(key))),
            )
    elif kind != "grpo":
        r.say("reference", "absent", *keys)


def _policy(r: Reading) -> None:
    strategy, held = f"{ACTOR}.strategy", f"{ACTOR}.fsdp_config"
    r.say("strategy", "fsdp2" if r.get(strategy) == "fsdp2" else "fsdp", strategy)
    if r.get(strategy) not in (None, "fsdp", "fsdp2"):
        r.block(f"the backend {str(r.get(strategy))[:20]} is not modelled for this objective", strategy)
    if found := dtype(r.get(f"{held}.model_dtype")):
        r.say("weights_dtype", found, f"{held}.model_dtype")
    if r.words["strategy"] == "fsdp2":
        r.say("gather_dtype", "bfloat16", strategy)
        r.say("reduce_dtype", "float32", strategy)
    if is_true(r.get(f"{held}.offload_policy")):
        r.say("offload", "parameters", f"{held}.offload_policy")
    keys = [f"{held}.{name}" for name in ("optimizer_offload", "param_offload") if is_true(r.get(f"{held}.{name}"))]
    if keys and r.words["rollout"] in ON_THIS_CARD:
        r.say("trainer_offload", "parameters" if f"{held}.param_offload" in keys else "optimizer", *keys)
        r.near("on the host while completions are generated; counted on the card while they are scored", *keys)
    checkpointing = f"{MODEL}.enable_gradient_checkpointing"
    if r.get(checkpointing) is not None:
        r.say("gradient_checkpointing", is_true(r.get(checkpointing)), checkpointing)
    if is_true(r.get(f"{MODEL}.enable_activation_offload")):
        r.say("checkpoint_offload", "cpu", f"{MODEL}.enable_activation_offload")
    padding = f"{MODEL}.use_remove_padding"
    if r.get(padding) is False:
        r.say("padded", True, padding)
    if is_true(r.get(f"{MODEL}.use_fused_kernels")):
        r.say("loss", "fused_head", f"{MODEL}.use_fused_kernels")
        r.near("verl's fused head is counted as TRL's, in tiles", f"{MODEL}.use_fused_kernels")
    if (r.whole(f"{ACTOR}.ulysses_sequence_parallel_size", 1) or 1) > 1:
        r.near("the sequence is split over GPUs", f"{ACTOR}.ulysses_sequence_parallel_size")
    clip = r.get(f"{ACTOR}.grad_clip")
    if isinstance(clip, (int, float)) and not isinstance(clip, bool):
        r.say("max_grad_norm", float(clip), f"{ACTOR}.grad_clip")


def _scoring(r: Reading) -> None:
    """Passes without gradients, each in micro batches of its own."""
    for key in (
        f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu",
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu",
    ):
        if r.whole(key, None) not in (None, r.words["micro_batch_size"]):
            r.near("completions are scored in other micro-batches than the learner's: counted as large as its own", key)


def _critic(r: Reading) -> None:
    path, rank = f"{CRITIC}.model.path", f"{CRITIC}.model.lora_rank"
    if r.get(path) not in (*NOTHING, r.model):
        r.say("value_model", r.get(path), path)
    if r.whole(rank, 0):
        r.say("value_trains", "lora", rank)
    held = f"{CRITIC}.model.fsdp_config.model_dtype"
    r.say("value_dtype", dtype(r.get(held)) or "float32", held)
    checkpointing = f"{CRITIC}.model.enable_gradient_checkpointing"
    if r.get(checkpointing) is not None and is_true(r.get(checkpointing)) != r.words.get(
        "gradient_checkpointing", True
    ):
        r.near("the value model is counted checkpointed as the policy is", checkpointing)
    own = r.whole(f"{CRITIC}.ppo_micro_batch_size_per_gpu", None)
    if own is not None and own != r.words["micro_batch_size"]:
        r.near(
            "the value model's micro-batch is counted as large as the policy's",
            f"{CRITIC}.ppo_micro_batch_size_per_gpu",
        )
