"""Search in data through the service, and the files that it gives out: those that are indexed."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from served import http, serving
from tiny_run import COLOURS

import skillweave as sw


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "photos"
    folder.mkdir()
    for colour in COLOURS:
        Image.new("RGB", (20, 20), colour).save(folder / f"{colour}.png")
    (folder / "red.txt").write_text("<b>red</b>")
    (folder / "tool.py").write_text("def double(x):\n    return 2 * x\n")
    (folder.parent / "secret.png").write_bytes((folder / "red.png").read_bytes())
    return folder


@pytest.fixture(scope="module")
def url(run: Path, photos: Path) -> Iterator[str]:
    with serving([f"run={run}"], data=str(photos)) as (found, _):
        yield found


def test_texts_and_examples_find_what_the_index_finds(url: str, run: Path, photos: Path) -> None:
    told = http.get(f"{url}/search").json()["collections"]
    assert [(one["modality"], one["items"]) for one in told] == [
        ("image", 6),
        ("code", 1),
        ("text", 1),
    ]
    index = sw.Index.build(run, photos, modality="image")
    found = http.post(f"{url}/search", json={"query": "red square", "k": 3}).json()
    expected = index.search(3, text="red square")
    assert [hit["key"] for hit in found["hits"]] == [hit.entry.key for hit in expected]
    assert [hit["score"] for hit in found["hits"]] == pytest.approx(
        [hit.score for hit in expected], abs=1e-5
    )
    encoded = base64.b64encode((photos / "blue.png").read_bytes()).decode()
    part = {"type": "image_url", "image_url": f"data:image/png;base64,{encoded}"}
    (hit,) = http.post(f"{url}/search", json={"query": part, "k": 1}).json()["hits"]
    assert hit["key"] == "blue.png"
    file = http.get(f"{url}{hit['file']}")
    assert file.content == (photos / "blue.png").read_bytes()
    assert file.headers["content-type"] == "image/png"
    body = {"query": "double", "within": "code", "k": 1}
    (hit,) = http.post(f"{url}/search", json=body).json()["hits"]
    assert "def double" in http.get(f"{url}{hit['file']}").text
    body = {"query": "red", "where": ["key!=red.png"], "k": 50}
    keys = {hit["key"] for hit in http.post(f"{url}/search", json=body).json()["hits"]}
    assert keys == {f"{colour}.png" for colour in COLOURS} - {"red.png"}


@pytest.mark.parametrize(
    "path",
    [
        "/items/image?key=../secret.png",
        "/items/image?key=..%2Fsecret.png",
        "/items/image?key=%2Fetc%2Fpasswd",
        "/items/image?key=red.txt",
        "/items/image?key=a'%20OR%20'1'='1",
        "/items/..%2F..%2Fetc?key=passwd",
        "/items/image/../../secret.png?key=a",
    ],
)
def test_nothing_else_is_given_out(url: str, path: str) -> None:
    assert http.get(f"{url}{path}").status_code == 404


def test_mistakes_are_told(url: str) -> None:
    for body, status, told in [
        ({"query": "a", "within": "imag"}, 404, "did you mean 'image'"),
        ({"query": "a", "where": ["x"]}, 400, "is no condition"),
        ({"query": "a", "where": ["yeer=1"]}, 400, "unknown column"),
        ({"query": ""}, 400, "text without tokens"),
        ({"query": "a", "k": 0}, 422, "k: "),
    ]:
        answer = http.post(f"{url}/search", json=body)
        assert answer.status_code == status and told in answer.json()["message"], body
