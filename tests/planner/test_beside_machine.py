"""Advice counts what stands beside the step: a machine's memory and an evaluation."""

from loralens.planner.fit import fit_answer


def answer(**recipe):
    return fit_answer({"model": "qwen2.5-1.5b", "method": "lora", "gpu": "rtx-4090", "recipe": recipe})


def test_nothing_fits_a_machine_that_has_too_little():
    found = answer(parallelism={"host_memory": 1.0})
    assert found["verdict"] == "does_not_fit"
    assert not any(row["fits"] for row in found["advice"]["changes"])
    assert found["advice"]["several_gpus"] is None
    assert all(row["value"] is None for row in found["largest"].values())


def test_an_evaluation_that_does_not_fit_is_advised_upon():
    found = answer(sequence_length=8192, evaluation={"samples": 64, "batch_size": 8, "metrics": "logits"})
    assert found["verdict"] == "does_not_fit"
    assert found["advice"] is not None


def test_an_offer_counts_what_the_machine_has():
    shared = {"gpus": 4, "strategy": "zero3", "offload": "optimizer"}
    enough, little = (answer(parallelism={**shared, "host_memory": size}) for size in (2000.0, 1.0))
    assert enough["advice"] is None
    assert little["advice"] is not None
