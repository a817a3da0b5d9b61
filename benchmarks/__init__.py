"""The benchmark kit, installed as `spectrafuse.benchmarks`: what `spectrafuse-bench` runs."""
