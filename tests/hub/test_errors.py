"""Patience with requests that fail: which are repeated, for how long, and which are not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import HfApi

from relex_merge.errors import RelexError
from relex_merge.hub import errors
from relex_merge.hub.errors import hub_errors, patiently, request_error, status_of
from tests.fake_hub import Fault, Hub

REPO = "org/model"
ASK = "GET /api/models/org/model$"


@pytest.fixture
def ask(hub: Hub, no_waiting: list[float]) -> Callable[[], Any]:
    hub.commit(REPO, {"config.json": b"{}"})
    return lambda: HfApi().model_info(REPO)


@pytest.mark.parametrize(
    "fault",
    [{"status": s} for s in (408, 429, 500, 502, 503, 504)]
    + [{"drop": "before"}, {"cut_after": 9}],
)
def test_what_passes_is_repeated(
    hub: Hub, ask: Callable[[], Any], no_waiting: list[float], fault: dict[str, Any]
) -> None:
    hub.faults.add(Fault(ASK, times=3, **fault))
    assert patiently(ask).id == REPO
    assert no_waiting == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 413, 416])
def test_what_does_not_pass_is_told_at_once(
    hub: Hub, ask: Callable[[], Any], no_waiting: list[float], status: int
) -> None:
    fault = hub.faults.add(Fault(ASK, times=None, status=status))
    with pytest.raises(errors.http_error()):
        patiently(ask)
    assert (fault.fired, no_waiting) == (1, [])


def test_a_hub_that_is_away_for_a_minute_is_waited_for(
    hub: Hub, ask: Callable[[], Any], no_waiting: list[float]
) -> None:
    hub.faults.add(Fault(lambda entry: sum(no_waiting) < 60, times=None, drop="before"))
    assert patiently(ask).id == REPO
    assert 60 <= sum(no_waiting) < 120


def test_patience_ends_after_two_minutes(
    hub: Hub, ask: Callable[[], Any], no_waiting: list[float]
) -> None:
    fault = hub.faults.add(Fault(ASK, times=None, status=503))
    with pytest.raises(errors.http_error()) as caught:
        patiently(ask)
    assert status_of(caught.value) == 503
    assert fault.fired == len(errors.WAITS) + 1
    assert 120 <= sum(no_waiting) < 150


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": " 7 "}, 7.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, 1.0),
        ({"RateLimit": '"api";r=0;t=55'}, 55.0),
        ({"RateLimit": '"api"; r = 0 ; t = 55', "RateLimit-Policy": '"x";"api";q=9;w=300'}, 55.0),
        ({"RateLimit": '"api";r=0;t=55', "Retry-After": "7"}, 7.0),
        ({"RateLimit": "nonsense"}, 1.0),
        ({}, 1.0),
    ],
)
def test_a_busy_hub_is_given_the_time_that_it_asks_for(
    hub: Hub,
    ask: Callable[[], Any],
    no_waiting: list[float],
    headers: dict[str, str],
    seconds: float,
) -> None:
    hub.faults.add(Fault(ASK, status=429, headers=headers))
    assert patiently(ask).id == REPO
    assert no_waiting == [seconds]


def test_nobody_waits_for_an_hour(
    hub: Hub, ask: Callable[[], Any], no_waiting: list[float]
) -> None:
    hub.faults.add(Fault(ASK, times=None, status=429, headers={"Retry-After": "3600"}))
    with pytest.raises(RelexError, match="limits the rate"), hub_errors(REPO, None):
        patiently(ask)
    assert no_waiting == []


def test_patience_inside_patience_does_not_multiply(
    hub: Hub, ask: Callable[[], Any], no_waiting: list[float]
) -> None:
    fault = hub.faults.add(Fault(ASK, times=None, status=503))
    with pytest.raises(errors.http_error()):
        patiently(lambda: patiently(ask))
    assert fault.fired == len(errors.WAITS) + 1
    hub.faults.clear()
    hub.faults.add(Fault(ASK, status=503))
    no_waiting.clear()
    assert patiently(ask).id == REPO  # and afterwards it is as before
    assert no_waiting == [1.0]


def test_a_client_that_another_thread_closed_is_made_anew(
    ask: Callable[[], Any], no_waiting: list[float]
) -> None:
    session = huggingface_hub.get_session()
    closing = threading.Thread(target=huggingface_hub.close_session)
    closing.start()
    closing.join()
    clients = iter([session, None])

    def call() -> Any:
        client = next(clients)
        return ask() if client is None else client.get(HfApi().endpoint)

    assert patiently(call).id == REPO
    with pytest.raises(RelexError, match="no connection to the Hub"), hub_errors(REPO, None):
        session.get(HfApi().endpoint)


def test_other_errors_are_not_touched(no_waiting: list[float]) -> None:
    for error in (RuntimeError("a bug"), OSError("no room"), RelexError("known")):

        def fail(error: Exception = error) -> None:
            raise error

        with pytest.raises(type(error)) as caught:
            patiently(fail)
        assert caught.value is error
    assert no_waiting == []


def test_the_error_behind_a_wrapped_one_counts(
    hub: Hub, ask: Callable[[], Any], no_waiting: list[float]
) -> None:
    hub.faults.add(Fault(ASK, times=None, status=500))

    def upload() -> None:
        try:
            ask()
        except Exception as error:
            raise RuntimeError("Error while uploading 'x' to the Hub.") from error

    with pytest.raises(RuntimeError) as caught:
        patiently(upload)
    assert len(no_waiting) == len(errors.WAITS)
    assert status_of(request_error(caught.value)) == 500
    with pytest.raises(RelexError, match=r"uploading 'x'.*status 500"), hub_errors(REPO, None):
        upload()
