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


OFFLOADED = {"gpus": 8, "strategy": "zero3", "offload": "optimizer"}


def full(**recipe):
    return fit_answer({"model": "llama-3.1-70b", "method": "full", "gpu": "h100-sxm", "recipe": recipe})


def test_where_much_is_needed_of_a_machine_nothing_fits_before_it_is_said_and_saying_it_is_the_way_out():
    unsaid = full(parallelism=OFFLOADED)
    assert (unsaid["verdict"], unsaid["decided_by"]) == ("tight", "host_memory_unsaid")
    assert all(row["value"] is None for row in unsaid["largest"].values())
    [change] = unsaid["advice"]["changes"]
    assert (change["field"], change["fits"]) == ("host_memory", True)
    assert unsaid["advice"]["path"][0]["to"] == change["to"]
    said = full(parallelism={**OFFLOADED, "host_memory": change["to"]})
    assert (said["verdict"], said["decided_by"], said["advice"]) == ("fits", "step", None)
    assert said["largest"]["sequence_length"]["value"] > 2048
    short = full(parallelism={**OFFLOADED, "host_memory": change["to"] - 1})
    assert (short["verdict"], short["decided_by"]) == ("tight", "host_memory")


def test_a_path_counts_what_its_own_changes_put_into_the_machine():
    found = full(sequence_length=32768, parallelism=OFFLOADED)
    path = {row["field"]: row["to"] for row in found["advice"]["path"]}
    assert path["checkpoint_offload"] == "cpu"
    words = {name: path[name] for name in path if name != "host_memory"}
    mended = full(sequence_length=32768, parallelism={**OFFLOADED, "host_memory": path["host_memory"]}, **words)
    assert mended["verdict"] == "fits"
