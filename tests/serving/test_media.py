"""Media in requests: from data URIs, never from files, and from no host that is not allowed."""

import base64
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skillweave.data.processors import BadInput
from skillweave.serving.content import read_row
from skillweave.serving.media import is_allowed, modality_of, read_media, resolve
from skillweave.serving.settings import ServiceConfig

CLOSED = ServiceConfig()


@given(content=st.binary(max_size=200), kind=st.sampled_from(["image/png", "audio/x-wav", ""]))
def test_data_uris_are_what_they_hold(content: bytes, kind: str) -> None:
    uri = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    assert read_media(uri, CLOSED) == content
    assert modality_of(uri) == {"image/png": "image", "audio/x-wav": "sound", "": None}[kind]


@pytest.mark.parametrize(
    "value",
    [
        "/etc/passwd",
        "../../etc/passwd",
        "file:///etc/passwd",
        "C:\\secret.png",
        "data:image/png;base64,%%%",
        "data:image/png",
        "ftp://example.org/a.png",
        "",
        "data:" + ";a=b" * 10_000,
    ],
)
def test_nothing_else_is_read(value: str) -> None:
    with pytest.raises(BadInput):
        read_media(value, CLOSED)
    with pytest.raises(BadInput):
        read_row({"image": value}, ("image",), CLOSED)


@pytest.mark.parametrize("value", [{"path": "/etc/passwd"}, {"bytes": "a"}, 5, None, [["a"]]])
def test_a_row_names_no_files(value: object) -> None:
    for field in ("image", "text"):
        with pytest.raises(BadInput, match=f"{field}: expected a"):
            read_row({field: value}, ("image", "text"), CLOSED)
    with pytest.raises(BadInput, match="unknown field 'key'; the task reads text"):
        read_row({"text": "a", "key": "b"}, ("text",), CLOSED)


def test_addresses_are_fetched_from_no_host_by_default() -> None:
    with pytest.raises(BadInput, match="web addresses are not fetched here"):
        read_media("https://example.org/a.png", CLOSED)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("images.example.org", True),
        ("a.b.example.org", True),
        ("example.org", False),
        ("evilexample.org", False),
        ("example.org.evil.net", False),
    ],
)
def test_a_list_of_hosts_is_exact(host: str, allowed: bool) -> None:
    assert is_allowed(host, [".example.org"]) is allowed


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "169.254.169.254", "10.0.0.1", "::1"])
def test_a_name_that_leads_inside_is_refused(host: str) -> None:
    with pytest.raises(BadInput, match="internal address"):
        resolve(host, 80, ["localhost"])


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/a",
        "http://allowed.test@127.0.0.1/a",
        "http://127.0.0.1#@allowed.test/",
        "http://[::1]/a",
        "http://2130706433/a",
        "http://0x7f.1/a",
        "http://[::ffff:127.0.0.1/",
    ],
)
def test_tricks_do_not_lead_inside(url: str) -> None:
    with pytest.raises(BadInput):
        read_media(url, ServiceConfig(allowed_hosts=("allowed.test", "localhost")))


class Files(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("location", "/file")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"x" * (2000 if self.path == "/large" else 5))

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def files() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Files)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_an_address_that_is_listed_itself_is_fetched(files: str) -> None:
    settings = ServiceConfig(allowed_hosts=("127.0.0.1",), max_body_bytes=1000)
    assert read_media(f"{files}/file", settings) == b"xxxxx"
    with pytest.raises(BadInput, match="status 302"):
        read_media(f"{files}/moved", settings)
    with pytest.raises(BadInput, match="larger than 1000"):
        read_media(f"{files}/large", settings)
