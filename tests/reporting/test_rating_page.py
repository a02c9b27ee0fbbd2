"""The rating page: pairs of both systems, blind, whole in one file."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from skillweave.config import ConfigError
from skillweave.reporting.rating_page import key_file, write_rating_page


def table(file: Path, texts: list[Any], inputs: list[str] | None = None) -> Path:
    rows = zip(inputs or [f"input {i}" for i in range(len(texts))], texts, strict=True)
    file.write_text("".join(json.dumps({"text": a, "answer": b}) + "\n" for a, b in rows))
    return file


def content(page: Path) -> dict[str, Any]:
    found = re.search(r'id="data">(.*?)</script>', page.read_text("utf-8"), re.S)
    assert found is not None
    return json.loads(found[1])


def test_pairs_are_blind_shuffled_and_whole(tmp_path: Path) -> None:
    systems = {
        "SystemAlpha": table(tmp_path / "a.jsonl", [f"ours {i}" for i in range(40)]),
        "SystemBeta": table(tmp_path / "b.jsonl", [f"theirs {i}" for i in range(40)]),
    }
    page = tmp_path / "page.html"
    key = write_rating_page(systems, page)
    assert "System" not in page.read_text("utf-8")
    items = content(page)["items"]
    assert {item["text"] for item in items} == {f"input {i}" for i in range(40)}
    assert [item["text"] for item in items] != [f"input {i}" for i in range(40)]
    for item in items:
        number = item["text"].split()[1]
        pair = [f"ours {number}", f"theirs {number}"]
        assert item["texts"] == (pair[::-1] if key.items[item["id"]] else pair)
    assert 10 < sum(key.items.values()) < 30
    hidden = json.loads(key_file(page).read_text("utf-8"))
    assert hidden["systems"] == ["SystemAlpha", "SystemBeta"] and hidden["page"] == key.page
    again = write_rating_page(systems, tmp_path / "again.html")
    assert again == key  # the same seed
    assert write_rating_page(systems, tmp_path / "other.html", seed=1) != key


def test_texts_cannot_leave_their_place(tmp_path: Path) -> None:
    bad = "</script><script>alert(1)</script>"
    systems = {name: table(tmp_path / f"{name}.jsonl", [bad]) for name in ("a", "b")}
    page = tmp_path / "page.html"
    write_rating_page(systems, page)
    assert "alert(1)</script>" not in page.read_text("utf-8")
    assert content(page)["items"][0]["texts"] == [bad, bad]


def test_pictures_are_in_the_page(tmp_path: Path) -> None:
    Image.new("RGB", (50, 40), "red").save(tmp_path / "p.png")
    systems = {n: table(tmp_path / f"{n}.jsonl", ["x"], ["p.png"]) for n in ("a", "b")}
    page = tmp_path / "page.html"
    write_rating_page(systems, page)
    assert content(page)["items"][0]["image"].startswith("data:image/")
    (tmp_path / "p.png").write_bytes(b"broken")
    with pytest.raises(ConfigError, match=r"p\.png: not an image"):
        write_rating_page(systems, page)
    (tmp_path / "p.png").unlink()
    with pytest.raises(ConfigError, match="no such image"):
        write_rating_page(systems, page)


def test_a_page_asks_nothing_of_the_network(tmp_path: Path) -> None:
    systems = {name: table(tmp_path / f"{name}.jsonl", ["x", None]) for name in ("a", "b")}
    page = tmp_path / "page.html"
    write_rating_page(systems, page, samples=1)
    text = page.read_text("utf-8")
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//|https?://", text)
    assert len(content(page)["items"]) == 1


def test_tables_that_do_not_fit(tmp_path: Path) -> None:
    a = table(tmp_path / "a.jsonl", ["x", "y"])
    b = table(tmp_path / "b.jsonl", ["x", "y"], ["input 0", "input 7"])
    page = tmp_path / "page.html"
    with pytest.raises(ConfigError, match="lacks 2 inputs of the other"):
        write_rating_page({"a": a, "b": b}, page)
    with pytest.raises(ConfigError, match="no column 'caption'; there are text, answer"):
        write_rating_page({"a": a, "b": a}, page, answer="caption")
    with pytest.raises(ConfigError, match="1 systems"):
        write_rating_page({"a": a}, page)
    assert not page.exists()


def test_equal_inputs_are_matched_in_order(tmp_path: Path) -> None:
    systems = {
        n: table(tmp_path / f"{n}.jsonl", [n + "1", n + "2"], ["i", "i"]) for n in ("a", "b")
    }
    page = tmp_path / "page.html"
    write_rating_page(systems, page)
    found = {frozenset(item["texts"]) for item in content(page)["items"]}
    assert found == {frozenset({"a1", "b1"}), frozenset({"a2", "b2"})}
