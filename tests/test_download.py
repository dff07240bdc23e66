"""persona/download.py against a real HTTP server on this machine."""

import hashlib
import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from persona import download
from persona.card import Source
from persona.errors import UserError

BOOK = "The Project Gutenberg eBook of A Book\r\n\r\nIt was night, née day.\r\n".encode()
SOURCE = Source("A Book", ("A Book",), ebook=7)


@pytest.fixture
def server(monkeypatch):
    """A server whose `answers` (status, headers, body) are given one after the other.

    The last one is given for ever.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            httpd.paths.append(self.path)
            status, headers, body = httpd.answers.pop(0) if len(httpd.answers) > 1 else httpd.answers[0]
            self.send_response(status)
            for name, value in {
                "Content-Type": "text/plain",
                **headers,
                "Content-Length": str(len(body)),
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.paths, httpd.answers, httpd.waits = [], [(200, {}, BOOK)], []
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{httpd.server_port}/epub/{{ebook}}/pg{{ebook}}.txt"
    monkeypatch.setenv("PERSONA_GUTENBERG_URL", url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download.time, "sleep", httpd.waits.append)
    yield httpd
    httpd.shutdown()
    httpd.server_close()


def test_success_is_written_whole_and_recorded(server, tmp_path):
    path = download.fetch(SOURCE, tmp_path / "cache")
    assert path == tmp_path / "cache" / "pg7.txt"
    assert path.read_bytes() == BOOK
    assert server.paths == ["/epub/7/pg7.txt"]
    assert server.waits == []
    assert json.loads((path.parent / "sources.json").read_text()) == {
        "pg7.txt": {
            "sha256": hashlib.sha256(BOOK).hexdigest(),
            "url": f"http://127.0.0.1:{server.server_port}/epub/7/pg7.txt",
        }
    }
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "pg7.txt",
        "sources.json",
    ]  # no temporary file left


def test_default_address(monkeypatch):
    monkeypatch.delenv("PERSONA_GUTENBERG_URL", raising=False)
    assert download.address(SOURCE) == "https://www.gutenberg.org/cache/epub/7/pg7.txt"


def test_own_address_goes_before_the_number_and_names_stay_apart(server, tmp_path):
    base = f"http://127.0.0.1:{server.server_port}"
    one = download.fetch(Source("One", ("One",), ebook=1, url=f"{base}/a/book.txt"), tmp_path)
    two = download.fetch(Source("Two", ("Two",), url=f"{base}/b/book.txt"), tmp_path)
    assert server.paths == ["/a/book.txt", "/b/book.txt"]
    assert one.name == "pg1.txt"
    assert two.name.startswith("book-")
    assert two.suffix == ".txt"


def test_override_without_a_number(monkeypatch, tmp_path):
    monkeypatch.setenv("PERSONA_GUTENBERG_URL", "http://mirror/book.txt")
    with pytest.raises(UserError, match=r"PERSONA_GUTENBERG_URL=http://mirror/book.txt: put {ebook} where"):
        download.fetch(SOURCE, tmp_path)


def test_no_address(tmp_path):
    with pytest.raises(
        UserError, match="Nothing: no address: give the card's source an ebook number or a url"
    ):
        download.fetch(Source("Nothing", ()), tmp_path)


def test_retry_after_503_and_429(server, tmp_path, caplog):
    server.answers = [
        (503, {}, b"busy"),
        (429, {"Retry-After": "7"}, b""),
        (503, {"Retry-After": "9999"}, b""),
        (200, {}, BOOK),
    ]
    assert download.fetch(SOURCE, tmp_path).read_bytes() == BOOK
    first, second, third = server.waits
    assert 1.0 <= first <= 1.5
    assert second == 7.0
    assert third == download.MAX_WAIT_SECONDS
    assert [r.levelno for r in caplog.records if "trying again" in r.message] == [logging.WARNING] * 3


def test_gives_up_after_four_tries(server, tmp_path):
    server.answers = [(500, {}, b"")]
    with pytest.raises(UserError, match=r"not reached in 4 tries \(HTTP 500\)") as error:
        download.fetch(SOURCE, tmp_path)
    assert len(server.paths) == 4
    assert len(server.waits) == 3
    assert "--corpus embedded" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_404_is_not_tried_again(server, tmp_path):
    server.answers = [(404, {}, b"gone")]
    with pytest.raises(UserError, match=r"pg7.txt: HTTP 404: mend the address"):
        download.fetch(SOURCE, tmp_path)
    assert len(server.paths) == 1


@pytest.mark.parametrize(
    ("headers", "body", "what"),
    [
        ({"Content-Type": "text/html; charset=utf-8"}, b"Please log in", "a web page"),
        ({}, b"\xef\xbb\xbf\n<!DOCTYPE html><html>...", "a web page"),
        ({}, b" \r\n", "an empty file"),
        ({}, b"", "an empty file"),
    ],
)
def test_something_else_than_text_is_refused(server, tmp_path, headers, body, what):
    server.answers = [(200, headers, body)]
    with pytest.raises(UserError, match=f"{what} instead of a text"):
        download.fetch(SOURCE, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_connection_refused_names_address_and_remedy_in_one_line(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError) as error:
        download.fetch(SOURCE, tmp_path)
    message = str(error.value)
    assert message.startswith(f"http://127.0.0.1:{server.server_port}/epub/7/pg7.txt: not reached in 4 tries")
    assert "--corpus embedded or --corpus DIR" in message
    assert "\n" not in message
    assert len(server.waits) == 3


def test_cached_file_needs_no_network(server, tmp_path, caplog):
    path = download.fetch(SOURCE, tmp_path)
    server.shutdown()
    server.server_close()
    caplog.clear()
    assert download.fetch(SOURCE, tmp_path) == path
    assert len(server.paths) == 1
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_file_put_there_by_hand_is_used_and_recorded(tmp_path):
    (tmp_path / "pg7.txt").write_bytes(BOOK)
    download.fetch(SOURCE, tmp_path)
    record = json.loads((tmp_path / "sources.json").read_text())
    assert record["pg7.txt"]["sha256"] == hashlib.sha256(BOOK).hexdigest()


@pytest.mark.parametrize("again", ["downloaded", "edited in the cache"])
def test_changed_hash_is_reported_with_both(server, tmp_path, caplog, again):
    path = download.fetch(SOURCE, tmp_path)
    if again == "downloaded":
        path.unlink()
        server.answers = [(200, {}, BOOK + b"More.\n")]
    else:
        path.write_bytes(BOOK + b"More.\n")
    download.fetch(SOURCE, tmp_path)
    old, new = (hashlib.sha256(data).hexdigest() for data in (BOOK, BOOK + b"More.\n"))
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert old in warning
    assert new in warning
    assert json.loads((tmp_path / "sources.json").read_text())["pg7.txt"]["sha256"] == new


def test_broken_record_is_one_line(tmp_path):
    (tmp_path / "pg7.txt").write_bytes(BOOK)
    (tmp_path / "sources.json").write_text("{")
    with pytest.raises(UserError, match=r"sources.json: not valid JSON .* delete it"):
        download.fetch(SOURCE, tmp_path)
