"""Inspection of a dataset: findings, statistics, preview."""
