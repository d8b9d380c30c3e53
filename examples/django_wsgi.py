"""Django on a WSGI server: one report at a time for each customer, and one more that waits.

A WSGI server has a thread for each request, so `SyncLimiter` holds the slot, around a view. Three
requests for the same customer arrive at once, and one for another. One is served, one waits for it,
and one is refused: a middleware of Django answers 503. The export is a stream, and holds its slot
until its last line was sent.

It prints::

    customer 1: 200, 200, 503
    customer 2: 200
    the refusal: no slot of per customer
    an export: 1,0 1,1 1,2
    keys in use: 0
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import django
import httpx
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

from limiter_core import ConcurrencyLimit, LimitReached, SyncLimiter

# -- settings.py -----------------------------------------------------------------------------------

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[f"{__name__}.RefusalMiddleware"],
)

# -- views.py, middleware.py, urls.py --------------------------------------------------------------

limiter = SyncLimiter("memory://")
per_customer = ConcurrencyLimit("customer_id", 1, max_waiting=1, timeout=30, name="per customer")


@limiter.limited(per_customer)
def report(_: HttpRequest, customer_id: int) -> HttpResponse:
    """Make a report; the slot is held while the view runs."""
    time.sleep(0.3)
    return HttpResponse(f"the report of customer {customer_id}")


@limiter.limited(per_customer)
def lines(customer_id: int) -> Iterator[str]:
    """Make an export, line by line; the slot is held from the first line to the last."""
    for number in range(3):
        yield f"{customer_id},{number}\n"


def export(_: HttpRequest, customer_id: int) -> StreamingHttpResponse:
    """Send an export."""
    return StreamingHttpResponse(lines(customer_id), content_type="text/csv")


class RefusalMiddleware:
    """Answers 503 where a view was refused."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Serve a request."""
        return self.get_response(request)

    def process_exception(self, _: HttpRequest, error: Exception) -> HttpResponse | None:
        """Return the answer to a refusal; None for all other errors."""
        if not isinstance(error, LimitReached):
            return None
        retry_after = max(1, round(error.retry_after or 1))
        headers = {"Retry-After": str(retry_after)}
        return HttpResponse(f"no slot of {error.name}", status=503, headers=headers)


urlpatterns = [
    path("reports/<int:customer_id>", report),
    path("exports/<int:customer_id>", export),
]

# -- wsgi.py ---------------------------------------------------------------------------------------

django.setup()
application = get_wsgi_application()

# -- the server, and its clients -----------------------------------------------------------------


class ThreadingServer(ThreadingMixIn, WSGIServer):
    """Serves each request in a thread."""


class QuietHandler(WSGIRequestHandler):
    """Serves a request."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Write no log."""


def main() -> None:
    server = make_server("127.0.0.1", 0, application, ThreadingServer, QuietHandler)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    serving.start()
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}") as client,
        ThreadPoolExecutor() as threads,
    ):
        *same, other = threads.map(client.get, ["/reports/1"] * 3 + ["/reports/2"])
        print(
            "customer 1:", ", ".join(str(status) for status in sorted(r.status_code for r in same))
        )
        print("customer 2:", other.status_code)
        print("the refusal:", next(r.text for r in same if r.status_code == 503))
        print("an export:", *client.get("/exports/1").text.split())
    print("keys in use:", len(list(limiter.keys())))
    server.shutdown()
    serving.join()
    server.server_close()
    limiter.close()


main()
