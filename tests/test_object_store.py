"""Stores under s3://, against a local server whose connection fails: 500s, and bodies that are cut off."""

from __future__ import annotations

import http.client
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from typer.testing import CliRunner

from arcforge.cli.app import app
from arcforge.engine import open_store, places
from arcforge.engine.commits import FileRecord, commit, files_of, read_commit
from arcforge.engine.errors import ConfigError, StoreCorruptError, StoreError, StoreExistsError
from arcforge.engine.inject import inject
from arcforge.engine.places import as_place
from arcforge.engine.plan import read_plan
from arcforge.engine.verify import verify
from arcforge.engine.writer import finalise

pytest.importorskip("obstore")
moto = pytest.importorskip("moto.server")
boto3 = pytest.importorskip("boto3")

pytestmark = pytest.mark.filterwarnings("ignore")  # the local server's own
N = 300
WHERE = "s3://sky/runs/S.zarr"


class Faults:
    """A proxy before the server, which fails now and then while ``every`` is set."""

    def __init__(self, port: int) -> None:
        self.every = 0
        self.served = self.failed = self.cut = 0
        faults = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                faults.served += 1
                if faults.every and faults.served % faults.every == 0:
                    faults.failed += 1
                    self.send_response(500)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                upstream = http.client.HTTPConnection("127.0.0.1", port)
                upstream.request(self.command, self.path, body, dict(self.headers))
                answer = upstream.getresponse()
                data = answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("connection", "transfer-encoding", "date", "server"):
                        self.send_header(name, value)
                if "Content-Length" not in dict(answer.getheaders()):
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                whole = self.command != "GET" or len(data) < 200 or not faults.every
                if whole or faults.served % (faults.every + 1):
                    self.wfile.write(data if self.command != "HEAD" else b"")
                else:
                    faults.cut += 1
                    self.wfile.write(data[: len(data) // 2])
                    self.wfile.flush()
                    self.close_connection = True
                    self.connection.shutdown(2)
                upstream.close()

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass_on

            def log_message(self, *arguments) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return self.server.server_address[1]


@pytest.fixture(scope="module")
def faults():
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    proxy = Faults(port)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        patch.setattr(places, "_PAUSE_S", 0.01)
        patch.setattr(
            places, "_stores", {}
        )  # those of an earlier server, between whose tests others may stand
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="sky")
        yield proxy
    proxy.server.shutdown()
    proxy.server.server_close()
    server.stop()


@pytest.fixture(scope="module")
def config(small_config):
    """One band has few columns, and each column takes two objects and a dozen requests."""
    return replace(small_config, bands="r", synthetic_host_count=4)


@pytest.fixture(scope="module")
def local(tmp_path_factory, config):
    return inject(tmp_path_factory.mktemp("local") / "S.zarr", config=config, n=N, seed=5)


@pytest.fixture(scope="module")
def remote(faults, config):
    """Written in partitions while every seventh request fails and every eighth large answer is cut off."""
    faults.every = 7
    for part in (1, 0):
        inject(WHERE, config=config, n=N, seed=5, partition=(part, 2))
    finalise(WHERE)
    faults.every = 0
    return open_store(WHERE)


def objects(prefix: str) -> dict[str, bytes]:
    root = as_place(prefix)
    return {each.relative_to(root).as_posix(): each.read_bytes() for each in root.rglob("*")}


def test_what_is_written_through_faults_has_the_bytes_of_a_local_store(remote, local, faults):
    assert faults.failed > 10
    stored = objects(WHERE)
    on_disk = {
        path.relative_to(local.path).as_posix(): path.read_bytes()
        for path in local.path.rglob("*")
        if path.is_file()
    }
    assert stored == on_disk


def test_what_is_read_through_faults_is_what_was_written(remote, local, faults):
    faults.every = 5
    before = faults.failed, faults.cut
    try:
        store = open_store(WHERE)
        for rows in (slice(None), [299, 0, 17, 17, 256]):
            np.testing.assert_array_equal(store.stamps(rows), local.stamps(rows))
            np.testing.assert_array_equal(store.arcs(rows), local.arcs(rows))
        for found, expected in ((store.catalog, local.catalog), (store.hosts, local.hosts)):
            assert str(found.to_pydict()) == str(expected.to_pydict())  # NaN is not equal to itself
        found = verify(WHERE, level="full")
    finally:
        faults.every = 0
    assert found.sound, found.faults
    assert found.complete
    assert found.notes == []
    assert faults.failed > before[0]
    assert faults.cut > before[1]


def test_damage_is_found_and_repaired(remote, config):
    shard = as_place(WHERE) / "arcs/c/1/0/0/0"
    good = shard.read_bytes()
    damaged = bytearray(good)
    damaged[100] ^= 1
    shard.put(damaged)
    with pytest.raises(StoreCorruptError, match="cannot be decoded"):
        open_store(WHERE).arcs(slice(256, 300))
    shard.put(good[:-7])
    with pytest.raises(StoreCorruptError, match="instead of"):
        open_store(WHERE).arcs([299])
    shard.unlink()
    assert any("is missing" in fault for fault in verify(WHERE).faults)
    with pytest.raises(StoreExistsError, match="--resume"):
        inject(WHERE, config=config, n=N, seed=5)
    inject(WHERE, config=config, n=N, seed=5, resume=True)
    done = CliRunner().invoke(app, ["verify", WHERE])
    assert done.exit_code == 0, done.output
    assert shard.read_bytes() == good


def test_of_two_writers_the_server_takes_the_first(faults, generated):
    first, second = (replace(generated.plan, seed=seed) for seed in (1, 2))
    root = as_place("s3://sky/runs/two.zarr")
    first.write(root)
    first.write(root)  # the same plan again: a request repeated, or another partition's
    with pytest.raises(FileExistsError):
        second.write(root)
    assert read_plan(root) == first
    files = {"arcs/c/0": FileRecord(3, "ab")}
    commit(root, first, "shard-00000", files)
    with pytest.raises(StoreError, match="another plan writes"):
        commit(root, second, "shard-00000", files)
    assert read_commit(root, first.sha256, "shard-00000")["plan_sha256"] == first.sha256
    newer = {"arcs/c/0": FileRecord(4, "cd")}  # the same plan's may be replaced, and a damaged one
    commit(root, first, "shard-00000", newer)
    (root / "commits/shard-00000.json").put(b"{}")
    commit(root, first, "shard-00000", newer)
    assert files_of(read_commit(root, first.sha256, "shard-00000")) == newer


def test_a_server_without_conditional_requests_is_written_to(faults, monkeypatch):
    monkeypatch.setattr(places, "_stores", {})
    monkeypatch.setenv("AWS_CONDITIONAL_PUT", "disabled")
    path = as_place("s3://sky/plain")
    assert path.create(b"a")
    assert path.create(b"b")
    assert path.read_bytes() == b"b"


def test_a_server_that_only_fails_is_named(faults, monkeypatch):
    monkeypatch.setattr(places, "_ATTEMPTS", 1)
    monkeypatch.setattr(places, "_stores", {})
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match="fails time after time"):
        open_store(WHERE)


def test_addresses_are_read():
    assert str(as_place("s3:/bucket/a/b.zarr")) == "s3://bucket/a/b.zarr"
    assert str(as_place("s3://bucket/a/b.zarr") / "c/0") == "s3://bucket/a/b.zarr/c/0"
    for bad in ("s3://bucket", "s3://bucket/", "s3:///x"):
        with pytest.raises(ConfigError, match="names no object"):
            as_place(bad)
    with pytest.raises(StoreError, match="no such store"):
        open_store("nowhere.zarr")
