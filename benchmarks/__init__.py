"""Benchmarks behind the figures in README and docs: `python -m benchmarks.<name>`."""
