"""`limiter demo`: a call log, replayed under declared limits by the real limiter.

The way through: `calls` and `limits` read the input, `plan` brings them together, `replay` makes
the calls, `record` notes who held what when, `live` shows it meanwhile, `timeline`, `summary` and
`page` afterwards.
"""
