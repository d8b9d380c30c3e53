"""`limiter demo`: a call log, replayed under declared limits by the real limiter.

The way through: `calls` and `limits` read the input, `plan` brings them together, `apart` keeps
them away from what is in use, `replay` makes the calls, `record` notes who held what when, `live`
shows it meanwhile, `timeline`, `summary` and `page` afterwards. With several processes, `workers`
starts them, each is a `worker` with a `replay` of its own, and `chronicle` makes one record of what
they report.
"""
