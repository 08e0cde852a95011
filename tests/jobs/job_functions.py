"""Jobs that the tests run in real child processes."""

import contextlib
import os
import signal
import time
from pathlib import Path


def counting(spec):
    for number in range(spec["count"]):
        yield {"type": "progress", "number": number}
    yield {"type": "result", "sum": sum(range(spec["count"])), "pid": os.getpid()}


def endless(spec):
    number = 0
    while True:
        number += 1
        yield {"type": "progress", "number": number, "pid": os.getpid()}
        time.sleep(0.01)


def deaf(spec):
    """Reaches no second event, whatever it is asked."""
    yield {"type": "progress", "pid": os.getpid()}
    while True:
        time.sleep(60)


def killed(spec):
    yield {"type": "progress", "number": 1}
    os.kill(os.getpid(), signal.SIGKILL)
    yield {"type": "progress", "number": 2}


def exits(spec):
    yield {"type": "progress", "number": 1}
    os._exit(7)


def faulty(spec):
    yield {"type": "progress", "number": 1}
    raise ValueError(f"cannot use {spec['value']}")


def refuses(spec):
    from loralens.core.errors import InvalidInput

    raise InvalidInput("rank must be at least 1, got 0", field="rank", hint="try rank=8")
    yield {"type": "never"}


def out_of_memory(spec):
    yield {"type": "progress", "number": 1}
    bytearray(2**62)


def prints(spec):
    print("a library that talks")
    os.write(1, b'{"event": {"type": "forged"}}\n')
    yield {"type": "result", "value": 1}


def not_a_number(spec):
    yield {"type": "point", "value": float("nan")}


def large(spec):
    for number in range(spec["count"]):
        yield {"type": "progress", "number": number, "filler": "x" * 10_000}
    yield {"type": "result"}


def stubborn(spec):
    """Goes on whatever it is asked, as a job deep inside a kernel does."""
    yield {"type": "progress", "pid": os.getpid()}
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(60)


def once(spec):
    """Leaves a line for each time that it is run, and dies."""
    with open(spec["path"], "a") as file:  # noqa: PTH123
        file.write("run\n")
    yield {"type": "progress", "number": 1}
    os.kill(os.getpid(), signal.SIGKILL)


def lost_device(spec):
    """What a CUDA context says after a fault in a kernel; no process that has said so is of further use."""
    yield {"type": "progress", "number": 1, "pid": os.getpid()}
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def meeting(spec):
    """Waits for another job, a minute at most; tells the node of the cluster that it ran on."""
    import ray

    folder = Path(spec["folder"])
    (folder / spec["name"]).touch()
    deadline = time.monotonic() + 60
    while not (folder / spec["wait_for"]).exists():
        if time.monotonic() > deadline:
            raise TimeoutError("the other job did not come")
        time.sleep(0.05)
    yield {"type": "result", "node": ray.get_runtime_context().get_node_id()}
