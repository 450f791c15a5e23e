"""Tokens and signed URLs are in nothing that the command prints or logs, ``-v`` or not."""

from __future__ import annotations

import io
import logging
import re
from pathlib import Path

import pytest

from relex_merge.cli.secrets import blanked_logs
from relex_merge.errors import RelexError, blank_secrets
from tests.fake_hub import Fault, Hub
from tests.fake_hub.access import Token
from tests.support.hub_series import RUN, recipe
from tests.support.models import write_recipe
from tests.support.terminal import Command

pytestmark = pytest.mark.usefixtures("no_figure")
SIGNATURE = re.compile(r"Signature=[^*\s]")


@pytest.mark.parametrize("how", ["--stream", "--no-stream"])
def test_a_traceback_and_the_clients_log_show_no_signature(
    relex: Command,
    hub: Hub,
    hub_login: Token,
    pins: dict[str, str],
    tmp_path: Path,
    no_waiting: list[float],
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    monkeypatch.setattr("relex_merge.hub.errors.WAITS", (1.0,))
    hub.faults.add(Fault(f"GET /cdn/{RUN}/.*safetensors", times=None, status=503))
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    client = logging.getLogger("huggingface_hub")
    client.addHandler(handler)
    try:
        done = relex(
            "run", "--yes", write_recipe(tmp_path / "r.yml", recipe()), tmp_path / "out", how, "-v"
        )
    finally:
        client.removeHandler(handler)
    assert done.code == 1
    assert "Traceback" in done.err
    assert "Signature=***" in done.err
    for text in (done.err, done.out, log.getvalue()):
        assert not SIGNATURE.search(text)
        assert hub_login.value not in text


def test_a_token_typed_as_a_revision_is_not_echoed(
    relex: Command, hub: Hub, hub_login: Token, pins: dict[str, str], tmp_path: Path
) -> None:
    token = "hf_TypedInTheWrongPlaceOfTheLine"
    made = recipe(f"{RUN}@step_1", f"{RUN}@{token}")
    made["models"][1]["parameters"] = {"step": 2}
    path = write_recipe(tmp_path / "r.yml", made)
    for verbose in ((), ("-v",)):
        done = relex("run", "--yes", path, tmp_path / "out", *verbose)
        assert done.code == 1
        assert f"{RUN} has no revision hf_***" in done.err
        assert token not in done.err
    push = ("push", tmp_path, RUN, "--revision", token)
    for arguments in (push, (*push, token), ("inspect", path, f"--{token}")):
        assert token not in relex(*arguments, "-v").err


def test_a_token_is_no_name_of_a_branch(
    relex: Command, hub: Hub, hub_login: Token, pins: dict[str, str], tmp_path: Path
) -> None:
    path = write_recipe(tmp_path / "r.yml", recipe())
    token = "hf_TypedInTheWrongPlaceOfTheLine"
    done = relex("run", "--yes", path, tmp_path / "out", "--push-to", RUN, "--revision", token)
    assert done.code == 1
    assert "--revision is an access token" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("hf_abcdefghijklmnopqrstuvwxyz", "hf_***"),
        ("hf_oauth_eyJhbGciOi.J9-x_yzzzzzz", "hf_***"),
        ("api_org_abcdefghijklmnopqrst", "hf_***"),
        ("my_hf_abcdefghijklmnopqrstuvwxyz", "my_hf_abcdefghijklmnopqrstuvwxyz"),
        ("hf_short", "hf_short"),
        ("(https://s3/x?X-Amz-Signature=1a&x=2)", "(https://s3/x?X-Amz-Signature=***&x=2)"),
        ("'http://a/b?Policy=p~_&Signature=s&v=1'", "'http://a/b?Policy=***&Signature=***&v=1'"),
        ("https://az/b?sv=2&sig=a%2Bb%3D", "https://az/b?sv=2&sig=***"),
        ("https://h/x?access_token=abc", "https://h/x?access_token=***"),
        ("signature=none, a?b=c", "signature=none, a?b=c"),
    ],
)
def test_what_is_blanked(text: str, shown: str) -> None:
    assert blank_secrets(text) == shown
    assert str(RelexError(text)) == shown


def test_a_secret_of_an_unusual_form_is_blanked_where_it_is_known() -> None:
    assert blank_secrets("ask with open-sesame", "open-sesame", None, "") == "ask with ***"


def test_log_records_are_blanked_while_the_command_runs_and_not_after() -> None:
    log = io.StringIO()
    logger = logging.getLogger("tests.blanking")
    logger.addHandler(logging.StreamHandler(log))
    secret = "hf_abcdefghijklmnopqrstuvwxyz"
    with blanked_logs():
        logger.warning("asked with %s", secret)
        logger.warning("it failed", exc_info=ValueError(secret))
    assert secret not in log.getvalue()
    assert log.getvalue().count("hf_***") == 2
    assert "ValueError" in log.getvalue()
    logger.warning("asked with %s", secret)
    assert secret in log.getvalue()
