"""Concurrency limits for arq."""
