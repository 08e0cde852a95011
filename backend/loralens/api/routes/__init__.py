"""One module per concern; each has a `router` without the /api prefix."""

ROUTERS = ("health", "memory", "parameters", "plan", "lifetimes", "models", "gpus", "fit", "plans", "ranks", "sweep", "check", "export", "explain", "course",
           "system", "jobs", "benchmarks", "calibrations", "adapters", "generation", "adapter_files", "adapter_tools", "serving", "forgetting",
           "traces", "watched")  # fmt: skip
"""Names of the modules in this package that `create_app` includes, in the order in which the schema lists them."""
