"""What all benchmarks share: their command line, and the processes that they start."""
