"""Where a server listens, and the keys that it takes."""

from __future__ import annotations

import pytest

from llmstages.cli.main import main
from llmstages.core.errors import StageError
from llmstages.serve import server


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::"])
def test_a_host_that_no_request_can_name_is_refused(host):
    with pytest.raises(StageError, match="Give the address that others use"):
        server.bind(host, 0)


def test_a_taken_port_is_named():
    with server.bind("127.0.0.1", 0) as listener:
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(StageError, match=f"127.0.0.1:{port}.*Choose another port"):
            server.bind("127.0.0.1", port)


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("short", "8 characters"),
        ("sch\u00fcssel-42", "ASCII"),
        ("two words here", "ASCII"),
        ("a-line\nbreak", "ASCII"),
    ],
)
def test_a_key_that_cannot_be_sent_is_refused_before_a_model_is_loaded(key, why, capsys):
    assert main(["serve", "nothing", "--key", key]) != 0
    assert why in capsys.readouterr().err
