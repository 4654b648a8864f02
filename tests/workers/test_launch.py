"""What is looked at before any process is started."""

import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from epp.config import ServeOptions
from epp.errors import UsageError
from epp.workers.launch import launch


def try_to_launch(**options: Any) -> None:
    """Launch what must not get as far as to start a process."""

    def must_not_run(*_: object) -> Any:
        raise AssertionError("a process was started")

    values = {"manifests": (), "host": "127.0.0.1", "grpc_port": 0, "workers": 2, **options}
    launch(ServeOptions(**values), must_not_run, must_not_run)


@pytest.mark.parametrize("may_share", [False, True])
def test_a_port_that_is_taken_is_refused_also_where_it_could_be_shared(may_share: bool) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, may_share)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=rf"127\.0\.0\.1:{port} .*--grpc-port"):
            try_to_launch(grpc_port=port)


def test_a_host_that_nobody_knows_is_refused() -> None:
    with pytest.raises(UsageError, match=r"cannot listen on nowhere\.invalid:0"):
        try_to_launch(host="nowhere.invalid")


def test_tls_is_looked_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--cert-path"):
        try_to_launch(client_ca_file=tmp_path / "ca.pem")
    with pytest.raises(UsageError, match=r"tls\.crt"):
        try_to_launch(cert_path=tmp_path)


def test_several_workers_need_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(UsageError, match="--workers 2: needs Linux"):
        try_to_launch()
