"""The page of limits: keys and names live, what operators do, a JSON API, and metrics.

    app.mount("/limits", limits_app(store, token="..."))     # in Starlette or FastAPI
    limiter serve --url redis://localhost:6379/0             # or by itself

`docs/how-to/operating.md` says what is shown, who may do what, and how to reach it safely.
"""

from importlib import import_module

try:
    for _module in ("jinja2", "prometheus_client", "sse_starlette", "starlette", "uvicorn"):
        import_module(_module)
except ImportError as error:
    raise ImportError(
        f'the page of limits needs {error.name}: pip install "concurrency-limits[web]"'
    ) from error

from limiter_web.app import limits_app

__all__ = ("limits_app",)
