"""Steps over texts: what each changes, what it drops, and why."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skillweave.config import ConfigError
from skillweave.corpus import Drop
from skillweave.corpus.step import STEPS
from skillweave.corpus.steps.repetition import ngram_shares, repeated
from skillweave.corpus.steps.secrets import entropy, find_secrets
from skillweave.corpus.steps.text import ALLOWED
from skillweave.corpus.tokens import count_tokens, ngram_hashes, token_hashes, tokens_of

ZH = "今天天气很好，我们一起去公园散步。孩子们在草地上玩，老人们在树下下棋。大家都说这是一个愉快的周末。"
EN = (
    "The committee met on Tuesday to discuss the new proposal, and its members agreed that more"
    " research would be needed. They will publish the results of the study in the spring. "
)


def result(kind: str, row: dict[str, Any] | str, **options: Any) -> Any:
    step = STEPS[kind].parse({"kind": kind, **options})
    step.prepare()
    (found,) = step.run([{"text": row} if isinstance(row, str) else row])
    return found


def text_after(kind: str, text: str, **options: Any) -> str:
    found = result(kind, text, **options)
    assert not isinstance(found, Drop), found
    return (found or {}).get("text", text)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Hello, world-wide 42!", ["Hello", "world", "wide", "42"]),
        ("今天 GPT4 很好。", ["今", "天", "GPT4", "很", "好"]),
        ("東京タワーへ", ["東", "京", "タ", "ワ", "ー", "へ"]),
        ("𠀀a_b", ["𠀀", "a", "b"]),
    ],
)
def test_tokens(text: str, tokens: list[str]) -> None:
    assert tokens_of(text) == tokens and count_tokens(text) == len(tokens)


@given(st.lists(st.sampled_from("abc"), max_size=12), st.integers(1, 4))
def test_ngram_hashes_are_equal_for_equal_ngrams_only(tokens: list[str], n: int) -> None:
    ngrams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    hashes = ngram_hashes(token_hashes(tokens), n).tolist()
    assert len(hashes) == len(ngrams)
    assert len(set(zip(hashes, ngrams, strict=True))) == len(set(hashes)) == len(set(ngrams))


def test_extract() -> None:
    page = f"<html><head><title>Weather news</title></head><body><nav>Home About</nav><article><p>{ZH}</p><p>{EN}</p></article><footer>© 2024</footer></body></html>"
    found = result("extract", {"html": page, "url": "http://x"})
    assert found["text"].split("\n") == [ZH, EN.strip()]
    assert found["title"] == "Weather news"


@pytest.mark.parametrize("html", ["", "<", "<html", "<p><p><p", "\x00", "<!doctype html><body>", "<a href=" * 50, "<div>" * 3000, "&#xD800;&#0;<svg><![CDATA["])  # fmt: skip
def test_malformed_pages_are_dropped(html: str) -> None:
    assert result("extract", {"html": html}).reason in ("no text in the page", "malformed page")
    assert isinstance(result("pairs", {"html": html, "file": "a", "page": "a"}), Drop)


def test_repair() -> None:
    assert text_after("repair", "It’s a cafÃ© &amp; bar") == "It's a café & bar"
    assert text_after("repair", "a\x07b\x1b[31mred") == "abred"
    assert result("repair", ZH) is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Ａ１　ｂ，ok！", "A1 b，ok！"),
        ("zero\u200bwidth\ufeff soft\u00adhyphen", "zerowidth softhyphen"),
        ("e\u0301", "é"),
        ("a\r\nb\rc\u2028d", "a\nb\nc\nd"),
        ("a \t b  \n\n\n\n c\0", "a b\n\nc"),
        ("plain", "plain"),
    ],
)
def test_unicode(before: str, after: str) -> None:
    assert text_after("unicode", before) == after


def test_unicode_options() -> None:
    assert text_after("unicode", "，！Ａ²", full_width="all") == ",!A²"
    assert text_after("unicode", "，！Ａ", full_width="keep") == "，！Ａ"
    assert text_after("unicode", "²™", form="NFKC") == "2TM"


@given(st.text())
def test_unicode_is_idempotent(text: str) -> None:
    once = STEPS["unicode"]().normalize(text)
    assert STEPS["unicode"]().normalize(once) == once


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("太好了！！！！！", "太好了！"),
        ("what???!!! no", "what?! no"),
        ("so...... yes…… —— ok", "so... yes…… —— ok"),
        ("a -- b --- c ----- d", "a -- b --- c --- d"),
        ("f(g(x)) && [[1]] http://x", "f(g(x)) && [[1]] http://x"),
        ("，，，。。。", "，。"),
    ],
)
def test_punctuation(before: str, after: str) -> None:
    assert text_after("punctuation", before) == after


def test_simplify() -> None:
    assert text_after("simplify", "臺灣的網路協會，頭髮與發展") == "台湾的网路协会，头发与发展"
    assert text_after("simplify", "網路", variant="tw2sp") == "网络"
    assert result("simplify", {"text": "東京タワーの歴史"}) is None
    assert result("simplify", {"text": "東京都", "language": "ja"}) is None


@pytest.mark.parametrize("variant", ["t2s", "tw2sp"])
def test_lines_that_are_not_converted_need_no_conversion(variant: str) -> None:
    """Each entry of OpenCC's tables, alone in a line, as OpenCC converts it."""
    from opencc import OpenCC

    folder = Path(sys.modules["opencc"].__file__).parent / "dictionary"
    entries = [
        line.partition("\t")[0]
        for table in ("TSPhrases", "TSCharacters", "TWPhrasesRev", "TWVariantsRev")
        for line in (folder / f"{table}.txt").read_text("utf-8").splitlines()
    ]
    text = "\n".join(entries)
    assert text_after("simplify", text, variant=variant) == OpenCC(variant).convert(text)


def test_characters() -> None:
    assert text_after("characters", "中文 English 123，。! Привет") == "中文 English 123，。! "
    assert text_after("characters", "für", languages=["en"], also="ü") == "für"
    assert result("characters", "Привет, мир").reason == "characters of other languages"
    with pytest.raises(ConfigError, match="no list of the letters of 'fi'"):
        result("characters", "x", languages=["fi"])
    for language in ALLOWED:
        assert text_after("characters", "Oh! 1+1", languages=[language]) == "Oh! 1+1"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "x" * 14}, "text under 15 characters"),
        ({"text": "一" * 15}, None),
        ({"text": "  " + "x" * 14 + " "}, "text under 15 characters"),
        ({"text": "x" * 15, "title": "四字标题"}, "title under 5 characters"),
        ({"text": "x" * 15, "title": "五个字标题"}, None),
        ({"text": "x" * 31}, "text over 30 characters"),
        ({"text": None}, None),
    ],
)
def test_length(row: dict[str, Any], reason: str | None) -> None:
    found = result("length", row, most_characters=30)
    assert (found and found.reason) == reason


def test_language() -> None:
    texts = {
        "zh": ZH,
        "en": EN,
        "de": "Das Wetter ist heute sehr schön, und wir gehen im Park spazieren.",
        "ja": "今日はとても良い天気なので、公園を散歩しました。",
        "ru": "Сегодня очень хорошая погода, и мы пошли гулять в парк.",
    }
    for language, text in texts.items():
        assert result("language", text)["language"] == language
    assert result("language", texts["de"], languages=["zh", "en"]) == Drop("another language", "de")
    assert result("language", "1234 !!!").reason == "no language for certain"


def test_language_needs_no_network(monkeypatch) -> None:
    import socket

    def refuse(*_: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("skillweave.corpus.steps.language._detector", None)
    assert result("language", EN)["language"] == "en"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (EN * 2, None),
        (ZH * 2, None),
        (EN, "under 50 words"),  # 30 words
        (ZH, "under 50 words"),  # 42 characters, about 28 words
        (EN * 2 + "# " * 10, "symbols"),
        ("a b c d e f g h i j " * 10, "mean length of words"),
        ("\n".join(f"- {EN}" for _ in range(3)), "bullets"),
        ("\n".join(f"{EN}..." for _ in range(3)), "lines that end with an ellipsis"),
        (f"{EN} " * 2 + "1234 5678 " * 20, "words without letters"),
        ("river stone cloud garden letter " * 12, "under 2 stop words"),
        ("江河湖海山川草木日月星辰" * 10, "under 2 stop words"),
    ],
)  # fmt: skip
def test_gopher(text: str, reason: str | None) -> None:
    language = "en" if text.isascii() else "zh"
    found = result("gopher", {"text": text, "language": language})
    assert (found and found.reason) == reason


def test_languages_without_stop_words() -> None:
    finnish = "Tänään on kaunis sää ja menemme puistoon kävelylle koko perheen voimin. " * 6
    assert result("gopher", {"text": finnish, "language": "fi"}) is None
    with pytest.raises(ConfigError, match=r"no list for the language 'fi'.*`stop_words`"):
        result("gopher", finnish, languages=["fi"])
    row = {"text": "river stone " * 40, "language": "fi"}
    found = result("gopher", row, languages=["fi"], stop_words={"fi": ["ja", "on"]})
    assert found.reason == "under 2 stop words"


def test_c4() -> None:
    lines = [
        "This is the first sentence of the page.",
        "Home | About | Contact",
        "Please enable JavaScript to see this page.",
        "This site uses cookies, as described below.",
        "Yes.",
        "Here is another sentence, and here is one more. It ends!",
    ]
    assert text_after("c4", "\n".join(lines)) == "\n".join([lines[0], lines[5]])
    assert text_after("c4", f"{ZH}\n版权所有，翻印必究。\n首页 关于我们\n{ZH}") == f"{ZH}\n{ZH}"
    assert result("c4", lines[0]).reason == "under 3 sentences"
    assert result("c4", f"{EN} Lorem ipsum dolor.").reason == "lorem ipsum"
    assert result("c4", "function() { return 1; }").reason == "a curly bracket"


def test_fineweb() -> None:
    assert result("fineweb", EN) is None and result("fineweb", ZH) is None
    menu = "\n".join(
        ["Products and services of the company"] + [f"A link number {i}" for i in range(9)]
    )
    assert result("fineweb", menu).reason == "lines without a mark at the end"
    short = "\n".join(["Yes.", "No.", "Maybe.", EN])
    assert result("fineweb", short).reason == "short lines"
    twice = f"{EN}\n{ZH}\n{EN}"
    assert result("fineweb", twice).reason == "characters in lines that stand twice"


def test_word_lists(tmp_path: Path) -> None:
    assert result("words", "博彩网站与六合彩，百家乐在线玩").reason == "words of the list"
    assert result("words", "The novel mentions a casino once.") is None
    assert result("words", ZH * 50 + "博彩，六合彩") is None  # 2 of 2,000 tokens
    file = tmp_path / "words.txt"
    file.write_text("Foo\n坏词\n\n", "utf-8")
    options = {"files": [str(file)], "languages": [], "most": 0, "share": 0}
    assert result("words", "a food fighter", **options) is None
    assert result("words", "say FOO now", **options).detail == "FOO"
    assert result("words", "这是坏词吗", **options).detail == "坏词"
    with pytest.raises(ConfigError, match=r"words: files .*none.txt: no such file"):
        result("words", "x", files=["none.txt"])
    with pytest.raises(ConfigError, match=r"no list for the language 'fi'.*`files`"):
        result("words", "x", languages=["fi"])
    with pytest.raises(ConfigError, match="no words; name languages, files or words"):
        result("words", "x", languages=[])


def test_shares_of_repetitions_by_hand() -> None:
    assert repeated(["ab", "ab", "c", "ab"]) == (2 / 4, 4 / 7)
    # x yy stands twice, and nothing longer
    assert list(ngram_shares(["x", "yy", "x", "yy", "z"], 9)) == [(2, 6 / 7, 3 / 7)]
    assert list(ngram_shares([], 4)) == list(ngram_shares(["x", "y"], 4)) == []


@given(st.lists(st.sampled_from(["a", "bb", "ccc"]), min_size=1, max_size=30))
def test_repeated_ngrams_as_a_plain_loop(tokens: list[str]) -> None:
    total = sum(map(len, tokens))
    found = {n: (top, again) for n, top, again in ngram_shares(tokens, 6)}
    for n in range(2, 7):
        seen: set[tuple[str, ...]] = set()
        covered: set[int] = set()
        ngrams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
        for i, ngram in enumerate(ngrams):
            if ngram in seen:
                covered |= set(range(i, i + n))
            seen.add(ngram)
        counts = Counter(ngrams)
        most = max(counts.values(), default=0)
        if most < 2:
            assert n not in found
            continue
        top, again = found[n]
        assert again == pytest.approx(sum(len(tokens[i]) for i in covered) / total)
        best = {c * len("".join(gram)) / total for gram, c in counts.items() if c == most}
        assert top in best


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (EN, None),
        (ZH, None),
        (f"{EN}\n{EN}\n{ZH}", "repeated lines"),
        ("\n".join([EN, EN, *(f"{i} lines" for i in range(5))]), "characters in repeated lines"),
        ("buy now " * 20, "most frequent 2-gram"),
        ("点击这里" * 20, "most frequent 2-gram"),
        (EN * 2, "repeated 5-grams"),
        (ZH * 2, "most frequent 4-gram"),  # 8 characters, twice, of 84
    ],
)
def test_repetition(text: str, reason: str | None) -> None:
    found = result("repetition", text)
    assert (found and found.reason) == reason


def test_secrets() -> None:
    token = "ghp_" + "a1B2c3D4e5F6" * 3
    code = f'token = "{token}"\npassword = "hunter2hunter9X"\nDB="postgres://bob:s3cr3tpw@db.example.com/x"\n'
    found = result("secrets", code)
    assert found["secrets"] == 3
    assert found["text"] == (
        'token = "<github_token>"\npassword = "<secret>"\n'
        'DB="postgres://<url_password>@db.example.com/x"\n'
    )
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----"
    assert result("secrets", f"a {key} b")["text"] == "a <private_key> b"
    assert result("secrets", code, drop=True) == Drop(
        "secrets", "github_token, secret, url_password"
    )
    harmless = [
        'password = os.environ["PASSWORD"]', "password: ********", "token = get_token(user1)",
        "The password must have 8 characters.", "api_key = YOUR_API_KEY_2", "secret=correcthorse",
    ]  # fmt: skip
    assert [find_secrets(line, 3.0) for line in harmless] == [[]] * len(harmless)
    assert entropy("aabb") == 1.0 and entropy("aaaa") == 0.0


def test_decontaminate(tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    sentence = "which of these planets is the largest one in our own solar system today"
    han = "下列哪一颗行星是太阳系中体积最大的行星呢"
    rows = [{"question": sentence}, {"question": "too short"}, {"question": han}]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    against = {"quiz": {"kind": "jsonl", "path": str(questions), "columns": {"text": "question"}}}
    step = STEPS["decontaminate"].parse({"kind": "decontaminate", "against": against})
    step.prepare()
    assert step.notes() == ["quiz: 1 texts have fewer than 13 tokens and are not searched for"]
    words = sentence.split()
    for text, found in (
        (f"{EN} {sentence.upper().replace(' ', ', ')}!", True),
        (" ".join(["so", *words[1:14]]), True),
        (" ".join(["so", *words[1:13], "now"]), False),  # 12 tokens in a row
        (f"问题：{han[:13]}？", True),
        (f"问题：{han[:12]}？", False),
        (EN, False),
    ):
        assert (step.change({"text": text}) is not None) is found, text
    missing = {"quiz": {"kind": "jsonl", "path": str(questions)}}
    with pytest.raises(ConfigError, match=r"against.quiz: no text of 13 tokens; name the column"):
        result("decontaminate", EN, against=missing)
