"""What stands around a trainer's own loss in a trace: a trainer with what its loss reads, and accelerate's wrapper around the model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch

from loralens.lab.trace import build


class NoKernel:
    """A kernel of Triton's that writes into what it is given."""

    def __getitem__(self, _: Any) -> Callable[..., None]:
        return lambda *args, **kwargs: None


def logged(_: Any = None, **_words: Any) -> torch.Tensor:
    """A number that is logged."""
    return torch.ones(4, device="cpu")


def bare(place: str, **words: Any) -> Any:
    """A trainer with what its loss reads, and nothing else. `place`: module and class."""
    module, name = place.rsplit(".", 1)
    made = getattr(import_module(module), name)
    trainer = made.__new__(made)
    accelerator = SimpleNamespace(
        parallelism_config=None, gather_for_metrics=logged, gather=logged, num_processes=1, device=torch.device("cuda"),
        unwrap_model=lambda model: model, autocast=lambda: torch.autocast("cuda", dtype=torch.bfloat16),
        process_index=0, is_main_process=False, reduce=logged,
    )  # fmt: skip
    args = SimpleNamespace(
        use_liger_kernel=False, loss_type="nll", average_tokens_across_devices=False, gradient_checkpointing_kwargs=None,
        center_rewards_coefficient=None, delta=None, use_bias_correction_kl=False, device=torch.device("cuda"),
        steps_per_generation=1, sapo_temperature_pos=1.0, sapo_temperature_neg=1.05, num_iterations=1, max_length=None,
    )  # fmt: skip
    vars(trainer).update(
        accelerator=accelerator, args=args, aux_loss_enabled=False, _metrics={"train": defaultdict(list)},
        _total_train_tokens=0, _tp_size=1, ref_model=None, beta=0.1, label_smoothing=0.0,
        _stored_metrics={"train": defaultdict(list)}, is_encoder_decoder=False, pad_token_id=0, padding_value=0, label_pad_token_id=-100,
        _peft_has_been_casted_to_bf16=False,
    )  # fmt: skip
    vars(trainer).update(words)
    return trainer


def prepared(model: Any, autocast: str | None) -> Any:
    """accelerate's `prepare_model`: autocast around the model's forward, and float32 copies of what it returns."""
    if autocast is None:
        return model
    from accelerate.utils.operations import convert_outputs_to_fp32

    inside = torch.autocast("cuda", dtype=build.DTYPES[autocast])(model.forward)
    model.forward = convert_outputs_to_fp32(inside)
    return model


def base_of(model: Any) -> Any:
    """The model inside of PEFT's."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def headed(model: Any, *outputs: str) -> Any:
    """TRL's head in the model's place, or none where the recipe builds whole logits."""
    import_module("trl.trainer.utils").add_fused_lm_head(base_of(model), outputs=("log_probs", *outputs))
    return model


@contextmanager
def phases_at(module: str, name: str, begin: Callable[[], None]) -> Iterator[None]:
    """`begin` is called where the trainer enters one of its context managers."""
    home = import_module(module)
    own = getattr(home, name)

    @contextmanager
    def entered(*args: Any, **words: Any) -> Iterator[None]:
        begin()
        with own(*args, **words):
            yield

    setattr(home, name, entered)
    try:
        yield
    finally:
        setattr(home, name, own)
