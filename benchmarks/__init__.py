"""Side-by-side measurements: each prints its tables and writes JSON to `benchmarks/results/`."""
