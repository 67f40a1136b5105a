"""One exception for every failure; JupyterHub looks for its message in three places."""

from __future__ import annotations

import pytest

from snowyspawner.session.errors import SessionError
from snowyspawner.session.messages import Words

HOSTILE = "<script>alert('x')</script> & \"quotes\""


def test_the_message_is_in_all_three_places() -> None:
    error = SessionError(Words("It failed.", "Try again."), reason="slurm", detail="sbatch said no")
    assert "It failed. Try again. (sbatch said no)" in str(error)
    assert error.jupyterhub_message == "It failed. Try again. (sbatch said no)"
    assert error.jupyterhub_html_message == "<p>It failed. Try again.</p><p><small>sbatch said no</small></p>"


def test_without_detail_there_are_no_brackets() -> None:
    error = SessionError(Words("It failed."), reason="queue_timeout")
    assert error.jupyterhub_message == "It failed."
    assert error.jupyterhub_html_message == "<p>It failed.</p>"


def test_the_last_lines_of_the_log_are_shown_as_they_are() -> None:
    error = SessionError(Words("It failed."), reason="launch", log=("one", "  two"))
    assert error.jupyterhub_html_message.endswith("<pre>one\n  two</pre>")
    assert error.log == ["one", "  two"]


@pytest.mark.parametrize("where", ["words", "detail", "log"])
def test_what_others_wrote_is_escaped(where: str) -> None:
    error = SessionError(
        Words(HOSTILE if where == "words" else "x"),
        reason="launch",
        detail=HOSTILE if where == "detail" else "",
        log=[HOSTILE] if where == "log" else [],
    )
    html = error.jupyterhub_html_message
    assert "<script" not in html
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; &quot;quotes&quot;" in html


def test_braces_and_percent_signs_are_only_characters() -> None:
    # tornado formats log_message with args when there are any.
    error = SessionError(Words("100% {node}"), reason="launch", detail="%s %(x)d")
    assert error.jupyterhub_message == "100% {node} (%s %(x)d)"
    assert "%s %(x)d" in str(error)


def test_the_status_is_one_that_proxies_pass_on() -> None:
    error = SessionError(Words("x"), reason="ended")
    assert error.status_code == 409
    assert SessionError(Words("x"), reason="request", status_code=400).status_code == 400
