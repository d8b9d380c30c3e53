"""Concurrency limits for Celery."""
