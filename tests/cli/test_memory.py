from __future__ import annotations

from json import dumps

import pytest


def test_the_table_shows_the_three_methods(run):
    code, out, _ = run("memory", "7B")
    assert code == 0
    assert "6,738,415,616 parameters" in out
    header = next(line for line in out.splitlines() if "at the peak" in line)
    assert header.split()[-3:] == ["full", "lora", "qlora"]
    trainable = next(line for line in out.splitlines() if "trainable parameters" in line)
    assert trainable.split()[-3:] == ["6,738,415,616", "4,194,304", "4,194,304"]


def test_every_term_can_be_shown(run):
    _, out, _ = run("memory", "7B", "-m", "lora", "--explain")
    assert "with numbers" in out
    assert "assumed:" in out
    assert "q_proj" in out


def test_words_without_effect_are_said_in_one_line(run):
    _, out, _ = run("memory", "qwen2.5-0.5b", "--dropout", "0.1", "--trainable-layers", "2")
    said = " ".join(out.split()).partition("without effect on memory: ")[2]
    assert said.startswith("dropout (full: full fine-tuning has no adapter); trainable_layers (lora, qlora: only full")
    assert "without effect" not in run("memory", "qwen2.5-0.5b", "--rank", "4", "-m", "lora")[1]


def test_the_allocator_can_be_simulated(run):
    _, by_rule, _ = run("memory", "7B", "-m", "lora")
    code, out, _ = run("memory", "7B", "-m", "lora", "--allocator", "simulated")
    assert code == 0
    assert run("memory", "7B", "-m", "lora", "--reserved", "simulated")[1] == out  # as it was called once
    safe = [next(one for one in text.splitlines() if one.startswith("to be safe")) for text in (by_rule, out)]
    assert safe[0] != safe[1]
    assert "lora, by simulated" in run("memory", "gpt2", "-m", "lora", "--allocator", "simulated", "--explain")[1]


def test_an_unknown_allocator_is_refused_with_a_way_out(run):
    code, _, err = run("memory", "gpt2", "--allocator", "magic")
    assert code == 2
    assert "rule, simulated" in err


def test_a_named_card_is_judged(run):
    code, out, _ = run("memory", "7B", "--gpu", "rtx-4090", "--no-gradient-checkpointing")
    assert code == 0
    said = [line.rpartition(": ")[2] for line in out.splitlines() if ": GeForce RTX 4090: needs" in line]
    assert said == ["does not fit", "tight", "fits"]
    assert "GeForce" not in run("memory", "7B")[1]


@pytest.mark.parametrize(
    ("method", "verdict"), [("full", "does_not_fit"), ("lora", "tight"), ("qlora", "fits"), ("full,lora", "tight")]
)
def test_the_exit_code_is_the_best_verdict(run, method, verdict):
    words = ("memory", "7B", "--gpu", "rtx-4090", "--no-gradient-checkpointing", "-m", method)
    for json in ((), ("--json",)):
        assert run(*words, *json)[0] == {"fits": 0, "tight": 4, "does_not_fit": 5}[verdict]
    assert run("memory", "7B", "-m", "full")[0] == 0


def test_what_is_needed_is_said_once_and_the_verdict_follows_from_it(run):
    _, out, _ = run("memory", "qwen3-8b", "-m", "qlora", "--gpu", "rtx-4090", "--rank", "16")
    rows = {line[:26].strip(): line[26:].split() for line in out.splitlines()}
    least, safe = (float(rows[name][0]) for name in ("memory needed at least", "to be safe"))
    assert least < safe
    assert ".." not in out
    card = 23.99
    said = next(line for line in out.splitlines() if line.startswith("qlora: GeForce"))
    verdict = "fits" if safe <= card else "tight" if least <= card else "does not fit"
    assert said.endswith(f"needs at least {least:.2f}, to be safe {safe:.2f} of 23.99 GiB: {verdict}")


def test_the_recipe_that_was_judged_is_printed_as_options_that_ask_for_it(run):
    words = ("memory", "8B", "-m", "QLoRA", "--batch-size", "2", "--seq-len=1024", "--gradient-checkpointing",
             "--lora-r", "4", "--gpu", "24GB")  # fmt: skip
    code, out, _ = run(*words)
    recipe = next(line for line in out.splitlines() if line.startswith("recipe: ")).removeprefix("recipe: ")
    assert "--micro-batch-size 2 --sequence-length 1024" in recipe
    assert run("memory", "8B", "-m", "qlora", *recipe.split(), "--gpu", "24GB") == (code, out, "")


def test_a_name_that_had_to_be_read_is_explained(run):
    _, out, _ = run("memory", "unsloth/Qwen3-8B-bnb-4bit", "-m", "lora")
    assert "unsloth/Qwen3-8B-bnb-4bit is read as Qwen3-8B" in out
    assert "lora: nf4 base" in out
    code, _, err = run("memory", "unsloth/Qwen3-8B-bnb-4bit", "-m", "full")
    assert code == 2
    assert "model=qwen3-8b" in err


def test_a_picture_is_said_in_words_and_shown_in_the_recipe(run):
    code, out, _ = run("memory", "qwen2.5-vl-3b", "-m", "lora", "--images", "1", "--image-size", "448x672")
    assert code == 0
    assert "--images 1 --image-size 448x672" in out
    code, _, err = run("memory", "qwen2.5-vl-3b", "--images", "1")
    assert code == 2 and "image_size is missing" in err


def test_a_file_of_samples_is_read(run, tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(dumps({"text": "word " * count}) for count in (10, 20, 400)), encoding="utf-8")
    code, out, _ = run("memory", "qwen2.5-0.5b", "-m", "lora", "--data", str(path))
    assert code == 0
    assert "the worst batch" in out
    assert "bytes / 4" in out
    code, _, err = run("memory", "qwen2.5-0.5b", "--tokenizer", "bytes")
    assert code == 2
    assert "no data is named" in err


def test_a_machine_and_an_evaluation_are_told(run):
    words = ["--eval-samples", "500", "--eval-metrics", "logits", "--host-memory", "64", "--gpu", "rtx-4090"]
    code, out, _ = run("memory", "llama-3.1-8b", "-m", "lora", *words)
    assert code == 5
    assert "while it evaluates" in out
    assert "host memory of a machine" in out
