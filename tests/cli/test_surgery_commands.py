"""The commands `upcycle`, `weave`, `carve`, `average` and `vocabulary`."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import make_run

import skillweave
from skillweave import cli
from skillweave.batch import Modality
from skillweave.config import ConfigError
from skillweave.data.processors import build_processors
from skillweave.inference import encode, load
from skillweave.model.model import Model
from skillweave.surgery.average import average
from skillweave.surgery.vocabulary import extend


def test_upcycle_compares_writes_and_lists(run, tmp_path, capsys):
    sparse, out = (
        "{qkv: {route: skill}, feed_forward: {route: token, experts: 3}}",
        tmp_path / "sparse",
    )
    words = [
        "upcycle",
        str(run),
        "--sparse",
        sparse,
        "--out",
        str(out),
        "--json",
        str(tmp_path / "u.json"),
    ]
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert (
        "compared on validation samples: answers differ" in shown and f"start_from={out}" in shown
    )
    rows = json.loads((tmp_path / "u.json").read_text("utf-8"))
    assert [row["group"] for row in rows if not row["source"]] == [
        "encoder.blocks.*.feed_forward.route.gate"
    ]
    model = skillweave.load(out)
    assert model.assets and sum(row["numbers"] for row in rows) == model.count_parameters()


def test_upcycle_writes_nothing_that_answers_otherwise(run, tmp_path, capsys):
    sparse, out = (
        "{feed_forward: {route: token, experts: 3}, qkv: {route: skill}}",
        tmp_path / "noisy",
    )
    assert (
        cli.main(["upcycle", str(run), "--sparse", sparse, "--noise", "0.5", "--out", str(out)])
        == 0
    )
    again = [
        "upcycle",
        str(out),
        "--sparse",
        sparse.replace("3}", "3, active: 1}"),
        "--out",
        str(tmp_path / "no"),
    ]
    assert cli.main(again) == 2  # experts that differ, mixed otherwise
    told = capsys.readouterr()
    assert "so nothing was written" in told.err and not (tmp_path / "no").exists()
    assert "compared on made inputs, as there are no samples" in told.out


def test_weave_writes_a_model_and_says_what_came_from_where(run, tmp_path, capsys):
    out = tmp_path / "woven"
    words = [
        "weave",
        "--recipe",
        str(run / "recipe.yaml"),
        "--out",
        str(out),
        f"text={run}",
        f"video={run}",
    ]
    assert cli.main([*words, "--shared", "video"]) == 0
    assert f"start_from={out}" in capsys.readouterr().out
    rows = {row["group"]: row for row in json.loads((out / "weave.json").read_text("utf-8"))}
    assert rows["embeddings.text"]["source"] == f"text={run}"
    assert rows["encoder.last_norm"]["source"] == f"video={run}"
    assert (
        rows["embeddings.sound"]["source"] == ""
        and rows["embeddings.sound"]["note"] == "no model given for it"
    )
    assert sum(row["numbers"] for row in rows.values()) == skillweave.load(out).count_parameters()


def test_carve_compares_writes_and_says_why(run, tmp_path, capsys):
    out = tmp_path / "small"
    words = [
        "carve",
        str(run),
        "--task",
        "speech_recognition",
        "--out",
        str(out),
        "--weights",
        "int8",
        "--json",
        str(tmp_path / "c"),
    ]
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert (
        "compared on 6 validation samples" in shown
        and "encoders/sound.pt2: torch.export, because Wav2Vec2Model adds" in shown
    )
    assert json.loads((tmp_path / "c").read_text()) == json.loads((out / "carve.json").read_text())
    assert (
        cli.main(["evaluate", str(out), "--bootstrap", "5"]) == 0
        and (out / "report.html").is_file()
    )
    assert (
        cli.main(
            [
                "predict",
                str(out),
                "--task",
                "speech_recognition",
                str(run.parent / "data" / "test-0.wav"),
            ]
        )
        == 0
    )
    assert "transcript" in capsys.readouterr().out


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
    with pytest.raises(ConfigError, match="1 model; a mean needs two or more"):
        average(folders[:1])
    other = make_run(tmp_path / "other", feed_forward_in={"route": "token", "experts": 3})
    with pytest.raises(ConfigError, match="cannot be averaged with"):
        average([run, other])


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
