"""`python -m limiter_arq worker.WorkerSettings`: arq's own command line, with a `LimitedWorker`."""

from limiter_arq._cli import main

if __name__ == "__main__":
    main()
