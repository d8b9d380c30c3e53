"""Broker, results and store with TLS, by the options that Celery takes in a URL."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from tests.redis._servers import Process
from tests.redis._tls import Authority, TLSFront

from ._worker_processes import MakeWorkers


def test_a_task_waits_for_its_turn_by_tls(
    running: Process, url: str, make_workers: MakeWorkers, user: str, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    with closing(TLSFront(authority, running.port)) as front:
        base = f"rediss://127.0.0.1:{front.port}"
        options = f"?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs={authority.ca}"
        places = {"broker": 0, "backend": 1, "store": 2}
        shop = make_workers(
            **{name: f"{base}/{number}{options}" for name, number in places.items()}
        )
        shop.start()
        shop.follow("by_user", user, 1.0)
        assert len(shop.log("end")) == 2
        shop.limiter.close()
        shop.close()
