"""`limiter demo`: a call log, replayed under declared limits by the real limiter.

`calls` and `limits` read the input, `plan` combines them, `replay_scope` separates them from the
keys in use, `replay` makes the calls, `record` notes which call held what when, `live` shows it
meanwhile, `timeline`, `summary` and `page` show it afterwards. With several processes, `workers`
starts them, each is a `worker` with a `replay` of its own, and `report_merger` makes one record of
what they report.
"""
