"""Every loss under its own name: head and loss alone against the real functions, traced on fake CUDA tensors.

`traced-losses.jsonl`: the libraries' own code on 16-bit hidden states that need a gradient; bytes above the start of the
forward peak, of what is kept for backward, and of the backward peak. Torch 2.13.
"""

import json
from pathlib import Path

import pytest

from loralens.core.answer.answers import memory_answer
from loralens.core.answer.estimate import estimate
from loralens.core.answer.plan import compile_plan
from loralens.core.architecture.call import Call
from loralens.core.architecture.loss import causal_loss
from loralens.core.architecture.losses.trl import CHUNK
from loralens.core.architecture.module import Linear
from loralens.core.errors import InvalidInput
from loralens.core.question.losses import LOSS_TABLE, LOSSES
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe
from loralens.core.tape.autocast import end_autocast
from loralens.core.tape.graph import Tensor
from loralens.core.tape.ledger import Ledger
from loralens.core.tape.size import TOKENS
from loralens.core.tape.tape import Tape
from loralens.core.tape.validity import Validity

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "oracles" / "traced-losses.jsonl").read_text("utf-8").splitlines()
]
WHOLE = {"full", "kernel", "compiled", "chunked", "linear", "kept_positions", "litgpt"}
"""Losses that keep as many values as tokens times vocabulary."""


class Model:
    """A head alone."""

    upcasts_logits = True
    casts_shifted = cuts_logits = casts_logits_back = False

    def __init__(self, row):
        self.head = Linear(row["hidden"], row["vocabulary"], False, name="head")
        self.head.weight.dtype, self.head.weight.trainable = row["head_dtype"], row["trained"]

    def logits(self, t, hidden):
        return self.head(t, hidden)


def walked(row, **words):
    """Peaks of forward and backward, and what is alive between them."""
    recipe = Recipe.from_mapping({"loss": row["loss"], "stack": row["stack"], "autocast": row["autocast"],
                                  "sequence_length": row["tokens"], **words})  # fmt: skip
    ledger, validity = Ledger(), Validity(recipe)
    t = Tape(ledger, autocast=recipe.autocast, validity=validity)
    ledger.enter("forward")
    t.section = "logits"
    hidden = Tensor(None, TOKENS * row["hidden"], "bfloat16", row["hidden"])
    t.require_grad(hidden)
    loss = causal_loss(t, Model(row), hidden, Call(recipe, validity))
    t.leave(0)
    end_autocast(t)
    kept = sum((size.at(recipe.micro_batch_size, row["tokens"], 8) for size in ledger.entries.values()), 0)
    ledger.enter("backward")
    t.backward(loss)
    ledger.settle()
    ledger.mark("end")
    peaks = {"forward": 0, "backward": 0}
    for moment in ledger.moments:
        peaks[moment.phase] = max(peaks[moment.phase], moment.total.at(recipe.micro_batch_size, row["tokens"], 8))
    return {**peaks, "kept": kept}


@pytest.mark.parametrize(
    "row", ROWS, ids=[f"{r['loss']}-{r['head_dtype']}-{r['trained']}-{r['autocast']}" for r in ROWS]
)
def test_peaks_are_those_of_the_real_function(row):
    found = walked(row)
    # torchtune was traced with labels on all 4096 positions; a sample's last has none
    # and TRL's tiles with rows that were taken by a copy, not by two numbers of each
    # and Liger's with a number for each row; torchtune's head takes its input's gradient in chunks too
    near = {"linear": 3e-4, "fused_head": 2e-4, "fused": 4e-4, "chunked": 7e-3}.get(row["loss"], 1e-5)
    assert (found["forward"], found["backward"]) == pytest.approx((row["forward"], row["backward"]), rel=near)
    assert found["kept"] == pytest.approx(row["kept"], rel=2e-3 if row["loss"] != "full" else 1e-6)


BASE = {"loss": "full", "stack": {}, "head_dtype": "bfloat16", "trained": False, "autocast": "bfloat16", "tokens": 4096,
        "vocabulary": 128_256, "hidden": 4096}  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_never_whole_is_never_whole(loss):
    found = walked({**BASE, "loss": loss})
    logits = 4096 * 128_256 * 2
    assert (found["kept"] >= logits) == (loss in WHOLE)
    assert LOSS_TABLE[loss].returns == (loss in {"full", "kernel", "compiled", "chunked", "kept_positions", "litgpt"})


def test_trl_copies_the_head_until_1_12():
    """Source: trl 1.12.0 and 1.13.0 trainer/sft_trainer.py `_chunk`."""
    old, new = ({**BASE, "loss": "chunked_nll", "stack": {"trl": version}} for version in ("1.12", "1.13"))
    copies = 128_256 * 4096 * (4 + 2)
    assert walked(old)["forward"] > copies > 4 * walked(new)["forward"] > 4 * CHUNK * 128_256 * 4


def test_liger_by_version():
    """A chunk of 128 rows: its 16-bit logits alone since 0.8, with two more of them since 0.5, with a float32 copy before."""
    chunk = 128 * 128_256
    held = {version: walked({**BASE, "loss": "fused", "stack": {"liger": version}})["forward"] - 4096 * 4096 * 2
            for version in ("0.4.2", "0.5.0", "0.8.5")}  # fmt: skip
    assert held == {"0.4.2": 8 * chunk, "0.5.0": 6 * chunk, "0.8.5": 2 * chunk}


def test_unsloth_by_version():
    """The kernel on whole logits, Apple's, and from 2025.9 on chunks."""
    kept = {version: walked({**BASE, "loss": "unsloth", "stack": {"unsloth": version}})["kept"]
            for version in ("2024.8", "2025.3", "2026.8", "2026.10")}  # fmt: skip
    assert kept["2024.8"] > 10**9 > 100 * kept["2025.3"]
    assert kept["2026.8"] == kept["2026.10"] == 4096 * 4096 * 2 + 4


@pytest.mark.parametrize("loss", [name for name in LOSSES if LOSS_TABLE[name].labelled_only])
def test_only_labelled_tokens_count(loss):
    some, all_ = (walked({**BASE, "loss": loss}, labelled_tokens=n) for n in (256, None))
    assert some["kept"] <= all_["kept"] and some["backward"] <= all_["backward"]
    if loss in WHOLE:
        assert some["kept"] < all_["kept"] / 8


def test_a_plan_holds_where_it_says():
    """Chunks and tiles change with the number of rows: another length is walked again or gives what its own walk gives."""
    model = resolve("qwen2.5-0.5b")
    for loss in LOSSES:
        plan = compile_plan(model, "lora", Recipe.from_mapping({"loss": loss}))
        for batch, length in ((1, 300), (2, 1500), (1, 2049), (1, 4097), (4, 2048)):
            own = Recipe.from_mapping({"loss": loss, "sequence_length": length, "micro_batch_size": batch})
            if plan.validity.covers(batch, length, 8):
                assert plan.peaks(batch, length, 8)[0] == compile_plan(model, "lora", own).peaks(batch, length, 8)[0]


def test_chunked_alone_is_ambiguous_and_says_so():
    (one,) = memory_answer({"model": "qwen2.5-0.5b", "method": "lora", "recipe": {"loss": "chunked"}})["estimates"]
    assert any("chunked_nll" in line and "torchtune's CEWithChunkedOutputLoss" in line for line in one["assumptions"])


def test_an_adapter_on_the_head_is_refused_where_the_head_is_passed_by():
    recipe = {"loss": "fused_head", "lora": {"target_modules": ["q_proj", "lm_head"]}}
    with pytest.raises(InvalidInput, match="passes by an adapter"):
        memory_answer({"model": "qwen2.5-7b", "method": "lora", "recipe": recipe})


def test_litgpts_list_is_alive_until_the_next_one_is_there():
    """float32 logits of all tokens: beside the optimizer's step, and beside the next forward pass and its own list."""
    words = {"autocast": None, "sequence_length": 4096, "gradient_checkpointing": False}
    kept, dropped = (compile_plan(resolve("llama-3.1-8b"), "lora", Recipe.from_mapping({**words, "loss": loss}))
                     for loss in ("litgpt", "cut"))  # fmt: skip
    logits = 4096 * 128_256 * 4
    (with_it, _, _), (without, _, _) = (plan.peaks(1, 4096, 8) for plan in (kept, dropped))
    assert with_it["optimizer"] - without["optimizer"] == logits + 4  # and the loss
    assert with_it["forward"] - without["forward"] > 2.3 * logits  # and the 16-bit pieces that it is made of


def test_a_sample_of_one_token_has_no_labelled_row_and_an_answer():
    assert estimate("llama-3.2-1b", loss="chunked_nll", sequence_length=1).allocated_bytes > 0
