"""`limiter run`: any command under a limit that all machines share.

`command` has the options and the exit statuses, `guard` takes the slot, watches over it and passes
signals on, `child` is the command as seen from here, `supervisor` the process that starts it.
"""
