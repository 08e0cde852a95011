"""Everything that runs torch: benchmarks, the tiny model, adapters, forgetting, traces and measurements."""
