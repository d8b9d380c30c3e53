"""The console script `limiter`."""

from limiter_cli.main import app

app()
