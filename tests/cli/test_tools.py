"""Means of models, larger vocabularies and whitened vectors."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tiny_run import make_run

from skillweave import cli
from skillweave.batch import Modality
from skillweave.config import ConfigError
from skillweave.data.processors import build_processors
from skillweave.inference.api import encode, load
from skillweave.inference.whitening import Whitening
from skillweave.model.model import Model
from skillweave.surgery.average import average
from skillweave.surgery.vocabulary import extend


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("tools"))


def test_the_mean_of_models(run: Path, tmp_path: Path) -> None:
    models = [load(run) for _ in range(3)]
    for i, model in enumerate(models):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(generator=torch.Generator().manual_seed(i))
        model.save_pretrained(tmp_path / f"step-{i:08d}")
    folders = [tmp_path / f"step-{i:08d}" for i in range(3)]
    assert cli.main(["average", *map(str, folders), "--out", str(tmp_path / "mean")]) == 0
    states = [m.state_dict() for m in models]
    for name, x in load(tmp_path / "mean").state_dict().items():
        torch.testing.assert_close(x, sum(s[name].double() for s in states).div(3).float())
    with pytest.raises(ConfigError, match="1 model; the mean is of two or more"):
        average(folders[:1])
    other = make_run(tmp_path / "other", feed_forward_in={"route": "token", "experts": 3})
    with pytest.raises(ConfigError, match="is not of the same make as"):
        average([run, other])


def test_new_words_begin_as_the_mean_of_their_pieces(run: Path, tmp_path: Path) -> None:
    model = load(run)
    old = build_processors(model.config, model.assets)[Modality.TEXT]
    tail = min(
        piece
        for piece in old.tokenizer.get_vocab()
        if piece.startswith("##") and piece[2:].isalpha()
    )
    word = f"good{tail[2:]}"
    pieces, known = (
        old.encode(word).ids,
        max(piece for piece in old.tokenizer.get_vocab() if piece.isalpha()),
    )
    larger = extend(model, [word, word, " ", known])
    new = build_processors(larger.config, larger.assets)[Modality.TEXT]
    assert len(pieces) > 1 and new.encode(f"so {word}").ids == [
        *old.encode("so").ids,
        old.vocabulary,
    ]
    assert (
        new.encode("so bad").ids == old.encode("so bad").ids
        and new.vocabulary == old.vocabulary + 1
    )
    table = larger.words(Modality.TEXT)
    torch.testing.assert_close(table[-1], model.words(Modality.TEXT)[pieces].mean(0))
    assert torch.equal(table[:-1], model.words(Modality.TEXT))
    larger.save_pretrained(tmp_path / "larger")
    texts = ["so good", "very bad"]
    assert np.array_equal(
        encode(load(tmp_path / "larger"), "text_to_code", text=texts),
        encode(model, "text_to_code", text=texts),
    )
    with pytest.raises(ConfigError, match="no word to add"):
        extend(model, [known])


def test_vocabulary_commands(run: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("the red cat\nthe red dog\n" * 3)
    out = tmp_path / "tokenizer.json"
    assert (
        cli.main(["vocabulary", str(tmp_path / "texts.txt"), "--size", "40", "--out", str(out)])
        == 0
    )
    assert {"the", "red"} <= set(json.loads(out.read_text())["model"]["vocab"])
    words = tmp_path / "words"
    words.write_text("redcat\n")
    assert (
        cli.main(
            ["vocabulary", str(words), "--extend", str(run), "--out", str(tmp_path / "larger")]
        )
        == 0
    )
    assert isinstance(load(tmp_path / "larger"), Model)
    assert (
        cli.main(["vocabulary", str(tmp_path / "texts.txt"), "--column", "txt", "--out", str(out)])
        == 2
    )


def test_whitened_vectors_have_the_identity_as_covariance() -> None:
    vectors = (
        np.random.default_rng(0).standard_normal((200, 6))
        @ np.random.default_rng(1).standard_normal((6, 6))
    ).astype(np.float32)
    whitening = Whitening.fit(vectors, 4)
    white = (vectors - whitening.mean) @ whitening.matrix
    assert np.allclose(white.T @ white / len(white), np.eye(4), atol=1e-4) and np.allclose(
        white.mean(0), 0, atol=1e-4
    )
    assert np.allclose(np.linalg.norm(whitening(vectors), axis=1), 1, atol=1e-5)
    with pytest.raises(ConfigError, match="7 dimensions of 200 vectors of 6: give 1 to 6"):
        Whitening.fit(vectors, 7)


def test_features_command(run: Path, tmp_path: Path) -> None:
    rows = [
        {"text": text, "n": i}
        for i, text in enumerate(["so good", "so bad", "very good", "red square", "blue"])
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        "features",
        str(run),
        "--task",
        "text_to_code",
        "--input",
        str(tmp_path / "in.jsonl"),
        "--out",
    ]
    assert cli.main([*words, str(tmp_path / "v.npy")]) == 0
    assert np.array_equal(
        np.load(tmp_path / "v.npy"),
        encode(load(run), "text_to_code", text=[r["text"] for r in rows]),
    )
    assert cli.main([*words, str(tmp_path / "v.parquet"), "--whiten", "3"]) == 0
    found = pq.read_table(tmp_path / "v.parquet").to_pylist()
    assert [row["n"] for row in found] == [0, 1, 2, 3, 4] and len(found[0]["vector"]) == 3
