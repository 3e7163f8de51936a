"""Networks of other packages, and the tasks that they share with ours; `benchmarks/run_peers.py` runs them."""
