"""`loralens fit --gpus N` without a strategy searches plans."""

from __future__ import annotations

import json

from loralens.planner.plans import plans_answer


def test_plans_are_a_table_with_configs_to_paste(run):
    code, out, _ = run("fit", "0.5B", "--method", "full", "--gpus", "4", "--gpu", "h100")
    assert code == 0
    assert "on 4 × H100" in out
    assert "fastest first" in out and "--strategy" in out
    assert "num_processes: 4" in out and "[parallelism]" in out


def test_the_json_is_the_apis(run):
    code, out, _ = run("fit", "0.5B", "--method", "full", "--gpus", "4", "--nodes", "2", "--gpu", "h100", "--json")
    body = {"model": "0.5B", "gpu": "h100", "method": "full", "recipe": {"gradient_checkpointing": True}}
    assert json.loads(out) == json.loads(json.dumps(plans_answer(body | {"gpus": 4, "nodes": 2})))
    assert code == 0


def test_a_cut_that_is_asked_for_is_kept(run):
    code, out, _ = run("fit", "0.5B", "--method", "full", "--gpus", "4", "--tp", "2", "--gpu", "h100", "--json")
    assert code == 0
    assert {row["mesh"]["tp"] for row in json.loads(out)["plans"]} == {2}


def test_a_plan_is_called_by_all_that_makes_it(run):
    """Of a cut that is asked for without more, the search's own plans say what else they have."""
    _, out, _ = run("fit", "0.5B", "--method", "full", "--gpus", "4", "--tp", "2", "--gpu", "h100")
    assert "tp 2, sequence_parallel, loss_parallel" in out


def test_what_fits_nowhere_says_the_nearest(run):
    code, out, _ = run("fit", "70B", "--method", "full", "--gpus", "2", "--gpu", "4090")
    assert code == 5
    assert "The nearest needs" in out


def test_where_the_gpus_suffice_it_says_what_else_decides(run):
    asked = ("fit", "70B", "--method", "full", "--gpus", "8", "--gpu", "h100", "--offload", "optimizer")
    code, out, _ = run(*asked)
    said = " ".join(out.split())
    assert code == 4
    assert "plans fits safely (what host memory a machine has is not said" in said
    assert "GiB of host memory at least" in said
    code, out, _ = run(*asked, "--host-memory", "2000")
    assert code == 0
    assert "no config is written: accelerate" in " ".join(out.split())


def test_nodes_go_with_a_search(run):
    code, _, err = run("fit", "0.5B", "--gpu", "4090", "--nodes", "2")
    assert code == 2
    assert "--gpus" in err


def test_what_changes_nothing_in_any_plan_is_said_once(run):
    words = ("--max-grad-norm", "2.0", "--labelled-tokens", "4096", "--loss", "fused_head", "--sequence-length", "2048")
    _, out, _ = run("fit", "0.5B", "--method", "full", "--gpus", "4", "--gpu", "h100", *words)
    text = " ".join(out.split())
    assert text.count("without effect: max_grad_norm (") == 1
    assert text.count("note: labelled_tokens 4,096 is above sequence_length 2,048") == 1
    assert text.index("note: ") < text.index("fastest first")
