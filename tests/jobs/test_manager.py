import os
import signal

import pytest

from loralens.core.errors import DeviceBusy, InvalidInput, JobNotFound
from loralens.jobs.database import StorageFull
from loralens.jobs.manager import JobManager


def submit(manager, function, spec=None, **options):
    return manager.submit("test", f"job_functions:{function}", spec or {}, **options)


def test_a_job_tells_its_events_in_order_and_ends_as_finished(manager, wait):
    job = wait(manager, submit(manager, "counting", {"count": 1500}).id)
    assert (job.status, job.error, job.last_event) == ("finished", None, 1501)
    events = manager.events(job.id, limit=2000)
    assert [event.sequence for event in events] == list(range(1, 1502))
    assert [event.data["number"] for event in events[:-1]] == list(range(1500))
    assert manager.result(job.id)["sum"] == 1124250
    assert [event.sequence for event in manager.events(job.id, after=1499)] == [1500, 1501]
    assert job.created_seconds <= job.started_seconds <= job.ended_seconds


def test_the_child_stays_warm_for_the_next_job(manager, wait):
    pids = {manager.result(wait(manager, submit(manager, "counting", {"count": 1}).id).id)["pid"] for _ in range(3)}
    assert pids == {manager.runner_pid()} and os.getpid() not in pids


@pytest.mark.parametrize(
    ("function", "code", "words"),
    [
        ("killed", "job_failed", "SIGKILL"),
        ("exits", "job_failed", "exit code 7"),
        ("faulty", "job_failed", "ValueError: cannot use 3"),
        ("out_of_memory", "out_of_memory", "ran out of memory"),
        ("lost_device", "device_lost", "illegal memory access"),
        ("not_a_number", "job_failed", "JSON"),
        ("missing", "job_failed", "missing"),
    ],
)
def test_every_failure_has_a_clear_state_and_the_next_job_runs(manager, wait, function, code, words):
    job = wait(manager, submit(manager, function, {"value": 3}).id)
    assert job.status == "failed"
    assert job.error["code"] == code and words in job.error["detail"]
    if function in ("killed", "exits", "faulty", "out_of_memory", "lost_device"):
        assert [event.data["number"] for event in manager.events(job.id)] == [1]
    assert wait(manager, submit(manager, "counting", {"count": 2}).id).status == "finished"


@pytest.mark.parametrize("function", ["lost_device", "out_of_memory"])
def test_a_process_that_lost_its_device_or_its_memory_is_replaced(manager, wait, function):
    warm = manager.result(wait(manager, submit(manager, "counting", {"count": 1}).id).id)["pid"]
    wait(manager, submit(manager, function).id)
    after = manager.result(wait(manager, submit(manager, "counting", {"count": 1}).id).id)["pid"]
    assert after != warm
    with pytest.raises(ProcessLookupError):
        os.kill(warm, 0)


def test_an_error_of_ours_keeps_code_field_and_hint(manager, wait):
    job = wait(manager, submit(manager, "refuses").id)
    assert job.error == {
        "code": "invalid_input", "title": "Invalid input", "status": 422,
        "detail": "rank must be at least 1, got 0", "field": "rank", "hint": "try rank=8",
    }  # fmt: skip


def test_what_a_library_prints_is_no_event(manager, wait):
    job = wait(manager, submit(manager, "prints").id)
    assert job.status == "finished"
    assert [(event.type, event.data) for event in manager.events(job.id)] == [("result", {"value": 1})]


@pytest.mark.parametrize("function", ["endless", "deaf"])
def test_cancel_keeps_what_was_told_and_frees_the_device(manager, wait, function):
    job = submit(manager, function)
    wait(manager, job.id, lambda job: job.last_event >= 1)
    manager.cancel(job.id)
    assert wait(manager, job.id).status == "cancelled"
    assert manager.job(job.id).last_event >= 1
    assert manager.cancel(job.id).status == "cancelled"
    assert wait(manager, submit(manager, "counting", {"count": 1}).id).status == "finished"


def test_a_cooperative_cancel_keeps_the_child(manager, wait):
    job = submit(manager, "endless")
    wait(manager, job.id, lambda job: job.last_event >= 1)
    pid = manager.runner_pid()
    manager.cancel(job.id)
    wait(manager, job.id)
    assert manager.runner_pid() == pid


def test_jobs_of_a_device_wait_with_their_place_and_can_be_cancelled_there(manager, wait):
    first = submit(manager, "endless")
    wait(manager, first.id, lambda job: job.status == "running")
    second, third = submit(manager, "counting", {"count": 1}), submit(manager, "counting", {"count": 1})
    assert [manager.job(job.id).place for job in (first, second, third)] == [0, 1, 2]
    assert manager.cancel(second.id).status == "cancelled"
    assert manager.job(third.id).place == 1
    manager.cancel(first.id)
    assert wait(manager, third.id).status == "finished"
    assert manager.job(second.id).last_event == 0


def test_devices_do_not_wait_for_each_other(manager, wait):
    blocking = submit(manager, "endless", device="cuda:0")
    assert wait(manager, submit(manager, "counting", {"count": 1}).id).status == "finished"
    assert manager.job(blocking.id).active


def test_queueing_can_be_refused_and_has_an_end(tmp_path, wait):
    manager = JobManager(tmp_path, max_waiting=2)
    try:
        submit(manager, "endless")
        with pytest.raises(DeviceBusy):
            submit(manager, "endless", queue=False)
        submit(manager, "endless")
        with pytest.raises(DeviceBusy, match="2 jobs wait"):
            submit(manager, "endless")
    finally:
        manager.close()


def test_unknown_jobs_and_devices_are_named(manager):
    with pytest.raises(JobNotFound):
        manager.job("nothing")
    with pytest.raises(InvalidInput, match="device"):
        submit(manager, "counting", device="../../etc")


def test_a_killed_child_is_seen_by_its_signal(manager, wait):
    job = submit(manager, "deaf")
    pid = wait(manager, job.id, lambda job: job.last_event == 1) and manager.events(job.id)[0].data["pid"]
    os.kill(pid, signal.SIGTERM)
    job = wait(manager, job.id)
    assert job.status == "failed" and "SIGTERM" in job.error["detail"]


def test_closing_interrupts_the_running_job_and_leaves_the_waiting_one_to_the_next_server(tmp_path, wait):
    manager = JobManager(tmp_path)
    first = submit(manager, "deaf")
    wait(manager, first.id, lambda job: job.last_event == 1)
    pid, second = manager.runner_pid(), submit(manager, "counting", {"count": 1})
    manager.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    after = JobManager(tmp_path)
    after.start()
    assert after.job(first.id).status == "interrupted"
    assert wait(after, second.id).status == "finished"
    assert after.job(first.id).last_event == 1
    after.close()


def test_a_full_disk_fails_the_job_and_not_the_server(tmp_path, wait):
    manager = JobManager(tmp_path, max_store_bytes=600_000)
    try:
        job = wait(manager, submit(manager, "large", {"count": 500}).id)
        assert (job.status, job.error["code"]) == ("failed", "storage_full")
        with pytest.raises(StorageFull):
            for _ in range(100):
                submit(manager, "counting", {"count": 1, "filler": "x" * 50_000})
        assert manager.job(job.id).status == "failed"
    finally:
        manager.close()


def test_a_folder_that_cannot_be_written_is_said_at_the_job_not_at_start(tmp_path):
    (tmp_path / "file").write_text("in the way")
    manager = JobManager(tmp_path / "file")
    manager.start()
    with pytest.raises(StorageFull):
        submit(manager, "counting", {"count": 1})
    manager.close()


def test_two_servers_share_a_store_and_a_device(tmp_path, manager, wait):
    other = JobManager(tmp_path / "state")
    other.start()
    try:
        first = submit(manager, "endless")
        wait(manager, first.id, lambda job: job.status == "running")
        second = submit(other, "counting", {"count": 1})
        assert other.job(second.id).place == 1 and manager.job(first.id).status == "running"
        other.cancel(first.id)
        assert wait(manager, first.id).status == "cancelled"
        assert wait(manager, second.id).status == "finished"
    finally:
        other.close()


def test_of_a_kind_that_runs_once_the_running_job_is_answered(manager, wait):
    first = submit(manager, "endless", once=True, visitor="me")
    assert submit(manager, "endless", once=True, visitor="me").id == first.id
    assert manager.active("test", visitor="me").id == first.id and manager.active("test", visitor="you") is None
    with pytest.raises(DeviceBusy, match="somebody else"):
        submit(manager, "endless", once=True, visitor="you")
    manager.cancel(first.id)
    wait(manager, first.id)
    again = submit(manager, "counting", {"count": 1}, once=True)
    assert again.id != first.id and wait(manager, again.id).status == "finished"
