"""Concurrency limits for Docket."""
