"""Forgetting and low rank, measured: the same small base adapted by full fine-tuning and by LoRA on real text.

`job.run(spec)` is the whole experiment as a generator of events; `plan` says what is run, `runs` trains, `spectrum`
looks at the real update, `costs` measures memory and time, `summary` and `sentences` say what was found.
"""
