"""The `limiter` command: see a load under its limits. Needs the extra `cli`."""
