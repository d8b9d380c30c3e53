"""The dashboard, the alerts and the page name only metrics and attributes that there are."""

from __future__ import annotations

import json
import re

from limiter_core.events import RefusedReason
from limiter_core.requests import Loss
from limiter_otel import _counts, _metrics
from tests.project._tree import ROOT

DASHBOARD = (ROOT / "docs/assets/limiter-dashboard.json").read_text(encoding="utf-8")
ALERTS = (ROOT / "docs/assets/limiter-alerts.yml").read_text(encoding="utf-8")
PAGE = "\n".join(
    (ROOT / "docs" / page).read_text(encoding="utf-8")
    for page in ("how-to/observability.md", "reference/metrics.md")
)

METRICS = {
    _metrics.WAIT: "_seconds_bucket",
    _metrics.HOLD: "_seconds_bucket",
    _metrics.CALLS: "_total",
    _metrics.LOST: "_total",
    _metrics.STORE_ERRORS: "_total",
    _metrics.HELD: "",
    _metrics.WAITING: "",
}
"""Each metric, and what the exporter of Prometheus appends to its name."""

IN_PROMETHEUS = {name.replace(".", "_") + suffix for name, suffix in METRICS.items()}
LABELS = {
    name.replace(".", "_")
    for name in (_counts.NAME, _counts.OUTCOME, _counts.ADAPTER, "error.type")
}
OUTCOMES = {
    *("granted", "cancelled", "failed", "admitted", "released", "collected"),
    *(reason.value for reason in RefusedReason),
    *(loss.name.lower() for loss in Loss),
}


def named_in(text: str) -> set[str]:
    """Return the names of metrics and labels that a text has."""
    return set(re.findall(r"\b(?:limiter|error)_[a-z_]+", text))


def outcomes_in(text: str) -> set[str]:
    """Return the outcomes that queries choose or leave out."""
    chosen = re.findall(r'limiter_outcome[=!~]+\\?"([^"\\]+)', text)
    return {outcome for each in chosen for outcome in each.split("|")}


def test_the_dashboard_names_what_there_is() -> None:
    dashboard = json.loads(DASHBOARD)
    assert named_in(DASHBOARD) == IN_PROMETHEUS | LABELS - {"limiter_adapter"}
    assert outcomes_in(DASHBOARD) <= OUTCOMES
    for panel in dashboard["panels"]:
        assert panel["title"]
        assert panel["description"].endswith(".")
        for target in panel["targets"]:
            assert named_in(target["expr"]) & IN_PROMETHEUS


def test_the_alerts_name_what_there_is() -> None:
    assert named_in(ALERTS) <= IN_PROMETHEUS | LABELS | {"limiter_otel"}
    assert outcomes_in(ALERTS)
    assert outcomes_in(ALERTS) <= OUTCOMES
    alerts = re.split(r"\n      - alert: ", ALERTS)[1:]
    assert len(alerts) == 5
    for alert in alerts:
        name = alert.partition("\n")[0]
        assert f"`{name}`" in PAGE
        assert named_in(alert) & IN_PROMETHEUS
        assert re.search(r"\n          summary: [A-Z].*\.$", alert.strip()), name
    assert "\t" not in ALERTS


def test_the_first_loss_and_the_first_outage_of_a_process_are_seen() -> None:
    """Their series begin with it, at 1: to `increase` of Prometheus nothing has happened."""
    chosen = r"(?:\{[^}]*\})?"
    for queries in (DASHBOARD, ALERTS):
        for name in ("limiter_leases_lost_total", "limiter_store_errors_total"):
            new = rf"\({name}{chosen}\s+unless {name}{chosen} offset \S+\)\s+or "
            assert queries.count(f"increase({name}") == 1
            assert re.search(rf"{new}increase\({name}", queries)


def test_the_page_names_what_there_is() -> None:
    assert set(re.findall(r"`(limiter\.[a-z.]+)`", PAGE)) == {
        *METRICS,
        *(_counts.NAME, _counts.OUTCOME, _counts.ADAPTER, "limiter.key"),
    }
    for name, suffix in METRICS.items():
        kind = {"_total": "counter", "_seconds_bucket": "histogram", "": "up-down counter"}[suffix]
        assert re.search(rf"\| `{re.escape(name)}` \| {kind}, ", PAGE)
    assert all(f"`{outcome}`" in PAGE for outcome in OUTCOMES)
