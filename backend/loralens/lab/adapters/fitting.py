"""Whether an adapter fits the base of a hub, in which several are served at once."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from loralens.core.errors import InvalidInput
from loralens.lab.adapters.adapter import Adapter
from loralens.lab.adapters.begins import needs_its_base


def check_fits(adapter: Adapter, linears: Mapping[str, nn.Linear], base: str) -> None:
    """Raises `InvalidInput` where the hub cannot serve it.

    Args:
        adapter: its factors lora_A (rank, in) and lora_B (out, rank) by module.
        linears: the base's linear layers by full name.
        base: the base's name, for the message.
    """
    config = adapter.config
    needs_its_base(config, "together with others it would meet the published base")
    if config.acts_otherwise:
        word = config.acts_otherwise[0]
        raise InvalidInput(
            f"{word} is set: here its updates would act on every token and layer",
            field=f"adapter_config.{word}",
            hint="PEFT loads it",
        )
    if adapter.extra or config.bias != "none":
        raise InvalidInput(
            "this adapter carries modules or biases stored in full",
            field="adapter",
            hint="it can be inspected; merge it into its base to serve it: model.merge_and_unload()",
        )
    for module, factors in adapter.factors.items():
        linear = linears.get(module)
        if linear is None or factors.is_embedding:
            raise InvalidInput(f"the base {base} has no linear layer {module}", field="adapter")
        given = (int(factors.lora_b.shape[0]), int(factors.lora_a.shape[1]))
        if given != (linear.out_features, linear.in_features):
            raise InvalidInput(
                f"{module}: the adapter is for {given[0]} × {given[1]}, the base has "
                f"{linear.out_features} × {linear.in_features}",
                field="adapter",
                hint="it was trained on another base model",
            )
