"""An out-of-memory message names the tensor: events made by the simulated allocator, from recipes and cards at random."""

from __future__ import annotations

import pytest
from trainers.oom_events import MODELS, events, place

from loralens.core.answer.estimate import estimate_model
from loralens.core.answer.named_requests import named_requests
from loralens.core.errors import InputTooLarge, InvalidInput
from loralens.core.question.model import named
from loralens.core.question.recipe import Recipe
from loralens.trainers.explain import explain_answer
from loralens.trainers.oom import MAX_TEXT, read_message

NEW = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.32 GiB. GPU 0 has a total capacity of 23.69 GiB of which "
    "1.55 GiB is free. Including non-PyTorch memory, this process has 22.13 GiB memory in use. Of the allocated memory "
    "20.50 GiB is allocated by PyTorch, and 1.20 GiB is reserved by PyTorch but unallocated. If reserved but"
)
OLD = (
    "RuntimeError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 10.92 GiB total capacity; 9.70 GiB already "
    "allocated; 11.62 MiB free; 10.11 GiB reserved in total by PyTorch)"
)


def test_figures_of_both_forms():
    new, old = read_message(f"step 3\n{OLD}\nstep 4\n{NEW}"), read_message(OLD)
    assert (new.tried.bytes, new.capacity_bytes, new.free_bytes) == (
        round(2.32 * 2**30),
        round(23.69 * 2**30),
        round(1.55 * 2**30),
    )
    assert (new.allocated_bytes, new.cached_bytes) == (round(20.5 * 2**30), round(1.2 * 2**30))
    assert (old.tried.bytes, old.capacity_bytes) == (20 * 2**20, round(10.92 * 2**30))
    assert old.cached_bytes == round(10.11 * 2**30) - round(9.7 * 2**30)


@pytest.mark.parametrize("text", [None, 3, "", "no such thing", "Tried to allocate many GiB"])
def test_texts_without_a_message_are_refused(text):
    with pytest.raises(InvalidInput):
        explain_answer({"text": text})


def test_a_text_without_end_is_refused():
    with pytest.raises(InputTooLarge):
        explain_answer({"text": "x" * (MAX_TEXT + 1)})


def test_without_a_set_up_the_figures_speak():
    answer = explain_answer({"text": NEW}, most_passes=16_000)
    assert (answer["reason"], answer["tensors"]) == ("fragmentation", [])
    assert "a guess among" in answer["notes"][0]
    assert explain_answer({"text": NEW.replace("1.20 GiB is reserved", "0.10 GiB is reserved")})["reason"] == "need"


@pytest.mark.parametrize(
    ("tried", "card", "reason"),
    [
        ("4.00 GiB", "4.00 GiB", "other_run"),
        ("4.00 GiB", "80.00 GiB", "other_run"),
        ("4.64 GiB", "4.00 GiB", "need"),
        ("4.64 GiB", "80.00 GiB", "beside"),
        ("20.00 MiB", "80.00 GiB", "beside"),
        ("20.00 MiB", "4.00 GiB", "need"),
    ],
)
def test_the_card_is_said_to_be_too_small_only_where_the_computed_step_says_so(tried, card, reason):
    text = f"CUDA out of memory. Tried to allocate {tried}. GPU 0 has a total capacity of {card} of which 1.20 GiB is free."
    recipe = {"micro_batch_size": 4, "sequence_length": 2048}
    answer = explain_answer({"text": text, "model": "qwen2.5-0.5b", "recipe": recipe})
    assert answer["reason"] == reason
    assert any("its largest has 4.64 GiB" in note for note in answer["notes"]) == (reason == "other_run")


def test_a_file_is_the_set_up():
    config = "base_model: Qwen/Qwen2.5-0.5B\nadapter: lora\nlora_r: 8\nlora_target_linear: true\nmicro_batch_size: 4\nsequence_len: 2048\ndatasets: x\n"
    text = "CUDA out of memory. Tried to allocate 4.64 GiB. GPU 0 has a total capacity of 12.00 GiB"
    answer = explain_answer({"text": text, "files": {"train.yaml": config}})
    assert answer["tensors"][0]["bytes"] == 4 * 2048 * 151936 * 4
    assert answer["tensors"][0]["category"] == "logits"
    assert answer["changes"]


def test_requests_add_up_to_the_peak():
    for method in ("full", "lora", "qlora"):
        found = estimate_model(named("qwen2.5-0.5b"), method, Recipe.from_mapping({"sequence_length": 512}))
        requests = named_requests(found.model, method, found.recipe)
        highest = max(one.alive_bytes + one.bytes for one in requests)
        assert highest <= found.allocated_bytes
        assert highest == found.allocated_bytes or found.phase == "optimizer"


def test_the_right_tensor_comes_first_with_the_set_up():
    places = [
        place(explain_answer({"text": text, **body})["tensors"], died) for body, died, text in events(8, MODELS[:3])
    ]
    assert max(places) < 3
    assert sum(one == 0 for one in places) >= 7


def test_without_a_set_up_it_is_guessed_and_said_so():
    """The last layer's logits of a common model, at a usual batch and length."""
    answer = explain_answer({"text": NEW.replace("20.50 GiB is alloc", "3.30 GiB is alloc")}, most_passes=16_000)
    assert answer["tensors"] == []
    assert "a guess among" in answer["notes"][0]
    first = answer["guesses"][0]
    assert (first["category"], first["bytes"]) == ("logits", 4096 * 151936 * 4)
    assert first["set_ups"][0]["micro_batch_size"] * first["set_ups"][0]["sequence_length"] == 4096


def test_a_size_of_no_usual_tensor_is_said():
    answer = explain_answer(
        {"text": "CUDA out of memory. Tried to allocate 900.00 GiB. GPU 0 has a total capacity of 80.00 GiB"}
    )
    assert answer["guesses"] == []
    assert "none of the" in answer["notes"][0]
    assert (
        "many small tensors" in explain_answer({"text": "CUDA out of memory. Tried to allocate 20.00 MiB"})["notes"][0]
    )


def test_the_change_is_made_in_the_words_of_the_file():
    config = "base_model: Qwen/Qwen2.5-0.5B  # small\nadapter: lora\nlora_target_linear: true\nmicro_batch_size: 4\nsequence_len: 2048\ndatasets: x\n"
    text = "CUDA out of memory. Tried to allocate 4.64 GiB. GPU 0 has a total capacity of 12.00 GiB"
    change = explain_answer({"text": text, "files": {"train.yaml": config}})["change"]
    assert change["file"] == "train.yaml"
    assert "# small" in change["text"] and "+gradient_checkpointing: true" in change["diff"]
    assert explain_answer({"text": text, "model": "qwen2.5-0.5b"})["change"] is None


@pytest.mark.parametrize("card", ["100.00 MiB", "9000.00 GiB"])
def test_a_card_of_no_known_size_gets_no_changes(card):
    text = f"CUDA out of memory. Tried to allocate 4.64 GiB. GPU 0 has a total capacity of {card}"
    assert explain_answer({"text": text, "model": "qwen2.5-0.5b"})["changes"] == []
