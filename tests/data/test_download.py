"""Downloads from a server on loopback: resumed, checked, renamed when whole, refused when wrong."""

import hashlib
import http.server
import io
import threading
import zipfile
from contextlib import contextmanager

import pytest

from graphdyn.data import catalog, get, verify
from graphdyn.data.cards import parse_card
from graphdyn.data.download import fetch, fetch_all
from graphdyn.errors import DataError

BODY = bytes(range(256)) * 4000  # 1 MB
DIGEST = hashlib.sha256(BODY).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.files``; breaks off after ``server.limits`` bytes, one limit a request."""

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        body = self.server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        start = int(asked.split("=")[1].rstrip("-")) if asked and self.server.ranges else 0
        if start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        limit = self.server.limits.pop(0) if self.server.limits else len(body)
        self.wfile.write(body[start : start + limit])
        self.close_connection = True

    def log_message(self, *args):
        pass


@contextmanager
def serving(files, limits=(), ranges=True):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.limits, server.ranges, server.asked = files, list(limits), ranges, []
    server.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("graphdyn.data.download.time.sleep", lambda seconds: None)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_a_file_arrives_whole_and_nothing_else_is_left(tmp_path):
    with serving({"/a%20b.bin": BODY}) as server:
        fetch(f"{server.address}/a b.bin", tmp_path / "deep" / "a.bin", DIGEST)
    assert (tmp_path / "deep" / "a.bin").read_bytes() == BODY
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.bin"]


def test_a_broken_connection_is_resumed_where_it_stopped(tmp_path):
    with serving({"/a": BODY}, limits=[300_000, 500_000]) as server:
        fetch(f"{server.address}/a", tmp_path / "a", DIGEST)
    assert (tmp_path / "a").read_bytes() == BODY
    assert server.asked == [None, "bytes=300000-", "bytes=800000-"]


def test_a_later_run_goes_on_with_the_part_of_an_earlier_one(tmp_path):
    (tmp_path / "a.part").write_bytes(BODY[:123_456])
    with serving({"/a": BODY}) as server:
        fetch(f"{server.address}/a", tmp_path / "a", DIGEST)
    assert server.asked == ["bytes=123456-"]
    assert (tmp_path / "a").read_bytes() == BODY


def test_a_server_without_ranges_starts_again(tmp_path):
    with serving({"/a": BODY}, limits=[300_000], ranges=False) as server:
        fetch(f"{server.address}/a", tmp_path / "a", DIGEST)
    assert (tmp_path / "a").read_bytes() == BODY


def test_a_part_longer_than_the_file_is_thrown_away(tmp_path):
    (tmp_path / "a.part").write_bytes(b"z" * (len(BODY) + 5))
    with serving({"/a": BODY}) as server:
        fetch(f"{server.address}/a", tmp_path / "a", DIGEST)
    assert (tmp_path / "a").read_bytes() == BODY


def test_a_wrong_digest_is_refused_and_leaves_nothing(tmp_path):
    with serving({"/a": BODY}) as server, pytest.raises(DataError, match="but the card says 0000"):
        fetch(f"{server.address}/a", tmp_path / "a", "0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_a_connection_that_always_breaks_keeps_what_came(tmp_path):
    with serving({"/a": BODY}, limits=[1000] * 9) as server, pytest.raises(OSError, match="ended"):
        fetch(f"{server.address}/a", tmp_path / "a", DIGEST)
    assert not (tmp_path / "a").exists()
    assert (tmp_path / "a.part").read_bytes() == BODY[:4000]


def test_parallel_downloads_of_one_file_do_not_mix(tmp_path):
    with serving({"/a": BODY}) as server:
        jobs = [
            threading.Thread(target=fetch, args=(f"{server.address}/a", tmp_path / "a", DIGEST))
            for _ in range(4)
        ]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()
    assert (tmp_path / "a").read_bytes() == BODY
    assert len(server.asked) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def zipped(members) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in members.items():
            bundle.writestr(name, content)
    return out.getvalue()


def archive_card(address):
    text = (
        f'name = "x"\nformat = "ogb"\nfolder = "x"\n[[source]]\ninto = "x"\n'
        f'archive = "{address}/x.zip"\ninside = "top/"\n[source.files]\n'
        f'"raw/a" = "{hashlib.sha256(b"aa").hexdigest()}"\n"raw/b" = ""\n'
    )
    return parse_card(text, "x")


def test_members_of_an_archive_go_to_their_places_and_no_others(tmp_path):
    content = {"top/raw/a": b"aa", "top/raw/b": b"bb", "../evil": b"no", "top/other": b"no"}
    with serving({"/x.zip": zipped(content)}) as server:
        card = archive_card(server.address)
        fetch_all(card, list(card.files), tmp_path / "root")
    found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {"root/x/raw/a", "root/x/raw/b"}
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a zip", "is not a whole zip file"),
        (zipped({"top/raw/a": b"ax", "top/raw/b": b""}), "the card says"),
        (zipped({"top/raw/a": b"aa"}), "has no member"),
    ],
)
def test_a_wrong_archive_is_refused(tmp_path, content, message):
    with serving({"/x.zip": content}) as server:
        card = archive_card(server.address)
        with pytest.raises(DataError, match=message):
            fetch_all(card, list(card.files), tmp_path)
    assert not (tmp_path / "x" / "raw" / "b").exists()


def test_an_unreachable_address_is_named_with_the_place_to_put_the_file(tmp_path):
    with serving({}) as server:
        card = archive_card(server.address)
        with pytest.raises(DataError, match=r"x\.zip could not be downloaded to .*raw/a") as error:
            fetch_all(card, list(card.files), tmp_path)
    assert "Not Found" in str(error.value)
    assert list(tmp_path.iterdir()) == []  # no empty folder stays behind


def test_downloading_can_be_forbidden(tmp_path):
    with pytest.raises(DataError, match=r"needs .*raw/a; download http://h/x\.zip"):
        fetch_all(archive_card("http://h"), list(archive_card("http://h").files), tmp_path, False)


def test_get_then_verify(tmp_path, monkeypatch):
    with serving({"/x.zip": zipped({"top/raw/a": b"aa", "top/raw/b": b"bb"})}) as server:
        monkeypatch.setattr(catalog, "card", lambda name: archive_card(server.address))
        assert {row["status"] for row in verify("x", tmp_path)} == {"missing"}
        assert [p.name for p in get("x", tmp_path)] == ["a", "b"]
        assert get("x", tmp_path)  # nothing is missing, so nothing is asked for
    assert len(server.asked) == 1
    assert [row["status"] for row in verify("x", tmp_path)] == ["ok", "no digest known"]
    (tmp_path / "x" / "raw" / "a").write_bytes(b"ab")
    assert verify("x", tmp_path)[0]["status"] == "differs"
