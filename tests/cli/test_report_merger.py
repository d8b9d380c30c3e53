"""Reports of several processes become one record, in the order in which things happened."""

import pytest

from limiter_cli.demo.calls import Call
from limiter_cli.demo.plan import plan
from limiter_cli.demo.record import Outcome
from limiter_cli.demo.replay_scope import ReplayScope
from limiter_cli.demo.report_merger import ReportMerger
from limiter_core import ConcurrencyLimit, ConfigurationError


@pytest.fixture
def planned(tmp_path):
    calls = [(line, Call(at=0, function="bill", duration=1.0)) for line in (1, 2)]
    return plan(calls, {"bill": (ConcurrencyLimit(),)}, tmp_path / "calls.jsonl")


def test_what_happened_earlier_is_told_first_whoever_reports_it_later(planned):
    merger = ReportMerger(planned, 2)
    for report in (["arrived", 0.1, 1], ["began", 1.2, 1], ["ended", 2.2, 1]):
        merger.receive(1, report)
    assert merger.record.turns == []  # the other may have been first

    for report in (["arrived", 0.0, 0], ["began", 0.0, 0], ["ended", 1.1, 0]):
        merger.receive(0, report)
    assert [turn.began_at for turn in merger.record.turns] == [0.0, None]

    merger.receive(0, ["now", 2.3])
    assert [turn.ended_at for turn in merger.record.turns] == [1.1, 2.2]
    assert merger.record.excesses == []
    assert merger.record.keys["bill()"].peak == 1


def test_an_overlap_between_processes_is_found(planned):
    merger = ReportMerger(planned, 2)
    for process in (0, 1):
        for report in (["arrived", 0.0, process], ["began", 0.5 + process / 10, process]):
            merger.receive(process, report)
        merger.receive(process, ["ended", 2.0, process])
        merger.receive(process, ["left", 2.1, process, "ran", None])
        merger.finished(process)

    (excess,) = merger.record.excesses
    assert (excess.in_use, excess.limit, excess.turn.planned.line) == (2, 1, 2)
    assert merger.record.count(Outcome.RAN) == 2


def test_limits_set_apart_keep_their_own_names_for_the_reader(tmp_path):
    limits = (ConcurrencyLimit("tenant", scope="billing"), ConcurrencyLimit("tenant"))
    call = Call(at=0, function="bill", duration=1.0, arguments={"tenant": "acme"})
    path = tmp_path / "calls.jsonl"
    own = plan([(1, call)], {"bill": limits}, path)
    scope = ReplayScope("demo-1")

    (moved,) = scope.plan(own)
    (in_store,) = plan([(1, call)], {"bill": moved.limits}, path)

    assert [claim.key for claim in moved.claims] == ["billing/tenant=acme", "tenant=acme"]
    keys = [claim.key for claim in in_store.claims]
    assert keys == ["demo-1.billing/tenant=acme", "demo-1/tenant=acme"]
    assert [scope.key(claim.key) for claim in moved.claims] == keys
    assert [scope.own(key) for key in keys] == [claim.key for claim in moved.claims]
    assert ReplayScope().name != ReplayScope().name


def test_a_scope_that_leaves_no_room_is_refused(tmp_path):
    call = Call(at=0, function="bill", duration=1.0)
    limits = {"bill": (ConcurrencyLimit(scope="s" * 51),)}

    with pytest.raises(ConfigurationError, match="scopes of up to 50 characters"):
        ReplayScope().plan(plan([(1, call)], limits, tmp_path / "calls.jsonl"))
