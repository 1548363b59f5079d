"""Evaluation: the benchmark, its report and its baselines."""
