"""One rank of a step on several GPUs, traced with the real libraries on a process group that sends nothing."""
