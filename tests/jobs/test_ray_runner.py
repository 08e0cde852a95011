"""Jobs on a real Ray cluster of this machine: the same states as in a process of our own."""

import importlib
import importlib.util
import os
import sys
from pathlib import Path

import pytest
from jobs.serving import Server

from loralens.core.errors import DependencyMissing
from loralens.jobs.choice import new_runner
from loralens.jobs.manager import JobManager
from loralens.jobs.ray_runner import RayRunner
from loralens.settings import Settings


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """One manager on one cluster for all tests here: starting it takes seconds."""
    if importlib.util.find_spec("ray") is None:  # not imported: the runner does that, in its own way
        pytest.skip("Ray is not installed: pip install 'loralens[cluster]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "PYTHONPATH", str(Path(__file__).parent)
        )  # what the cluster's processes inherit, whenever it starts
        manager = JobManager(tmp_path_factory.mktemp("state"), new_runner=new_runner("ray"))
        manager.start()
        yield manager
        manager.close()
    assert not importlib.import_module("ray").is_initialized()


@pytest.fixture
def ray(cluster, wait):
    """The module, connected."""
    wait(cluster, submit(cluster, "counting", {"count": 1}).id, seconds=120)
    return importlib.import_module("ray")


def submit(manager, function, spec=None, **options):
    return manager.submit("test", f"job_functions:{function}", spec or {}, **options)


def test_a_job_tells_its_events_in_order_and_ends_as_finished(cluster, wait, ray):
    job = wait(cluster, submit(cluster, "counting", {"count": 300}).id)
    assert (job.status, job.error, job.last_event) == ("finished", None, 301)
    assert [event.data["number"] for event in cluster.events(job.id, limit=300)] == list(range(300))
    assert cluster.result(job.id)["sum"] == 44850 and cluster.result(job.id)["pid"] != os.getpid()
    (node,) = ray.nodes()
    assert node["NodeManagerAddress"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("function", "code", "words"),
    [
        ("killed", "job_failed", "died"),
        ("faulty", "job_failed", "ValueError: cannot use 3"),
        ("out_of_memory", "out_of_memory", "ran out of memory"),
        ("lost_device", "device_lost", "illegal memory access"),
        ("refuses", "invalid_input", "rank must be at least 1"),
    ],
)
def test_every_failure_has_a_clear_state_and_the_next_job_runs(cluster, ray, wait, function, code, words):
    job = wait(cluster, submit(cluster, function, {"value": 3}).id)
    assert job.status == "failed"
    assert job.error["code"] == code and words in job.error["detail"]
    assert wait(cluster, submit(cluster, "counting", {"count": 2}).id).status == "finished"


def test_a_job_that_dies_is_not_run_again(cluster, ray, wait, tmp_path):
    job = wait(cluster, submit(cluster, "once", {"path": str(tmp_path / "runs")}).id)
    assert job.status == "failed"
    assert wait(cluster, submit(cluster, "counting", {"count": 1}).id).status == "finished"
    assert (tmp_path / "runs").read_text() == "run\n"


@pytest.mark.parametrize("function", ["endless", "deaf", "stubborn"])
def test_cancel_keeps_what_was_told_and_frees_the_device(cluster, ray, wait, function):
    job = submit(cluster, function)
    wait(cluster, job.id, lambda job: job.last_event >= 1)
    cluster.cancel(job.id)
    job = wait(cluster, job.id)
    assert job.status == "cancelled" and job.last_event >= 1
    assert wait(cluster, submit(cluster, "counting", {"count": 1}).id).status == "finished"


def test_a_job_waits_for_a_gpu_that_the_cluster_lacks_and_can_be_cancelled(cluster, ray, wait):
    job = submit(cluster, "counting", {"count": 1}, device="cuda:0")
    wait(cluster, job.id, lambda job: job.status == "running")
    assert wait(cluster, submit(cluster, "counting", {"count": 1}).id).status == "finished"
    assert cluster.job(job.id).last_event == 0
    cluster.cancel(job.id)
    assert wait(cluster, job.id).status == "cancelled"


def test_a_server_runs_its_benchmarks_on_a_cluster_that_is_there(cluster, wait, ray, tmp_path, monkeypatch):
    monkeypatch.setenv("LORALENS_RUNNER", "ray")
    monkeypatch.setenv("LORALENS_RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    server = Server(tmp_path)
    try:
        body = {"in_features": 64, "out_features": 64, "seconds": 0.5, "variants": ["addmm"], "cache": "hot"}
        events = list(server.events(server.post("/api/benchmarks", body)["events"]))
        assert events[-1]["event"] == "done" and events[-1]["data"]["status"] == "finished"
        assert any(event["event"] == "point" for event in events)
    finally:
        server.close()


def test_without_ray_the_job_says_what_to_install(tmp_path, wait, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    manager = JobManager(tmp_path, new_runner=new_runner("ray"))
    manager.start()
    job = wait(manager, submit(manager, "counting", {"count": 1}).id)
    assert (job.status, job.error["code"]) == ("failed", DependencyMissing.code)
    assert "cluster" in job.error["hint"] or "ray" in job.error["hint"]
    manager.close()


def test_settings_choose_the_runner(monkeypatch):
    assert Settings().runner == "local"
    monkeypatch.setenv("LORALENS_RUNNER", "ray")
    monkeypatch.setenv("LORALENS_RAY_ADDRESS", "10.0.0.5:6379")
    settings = Settings()
    runner = new_runner(settings.runner, settings.ray_address)()
    assert isinstance(runner, RayRunner) and runner._address == "10.0.0.5:6379"
    monkeypatch.setenv("LORALENS_RUNNER", "slurm")
    with pytest.raises(ValueError, match="runner"):
        Settings()
