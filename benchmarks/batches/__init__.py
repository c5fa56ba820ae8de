"""The batches that benchmarks judge: real and simulated ones, sound and with faults put in."""
