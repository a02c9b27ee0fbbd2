"""Files beside a `tokenizer.json` count as in Transformers, in both directions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hf_folder import WORDS, save_bert
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    BertForSequenceClassification,
    BertTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

import skillweave as sw
from skillweave.interop.huggingface import convert_folder
from skillweave.interop.huggingface.tokenizer_files import text_processor

TEXTS = ["So good", "the CAT is here", "new_word is très good", "the 猫", "so"]
SETTINGS = "tokenizer_config.json"


def set_json(name: str, **options: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / name
        given = json.loads(file.read_text()) if file.is_file() else {}
        file.write_text(json.dumps(given | options))

    return change


def without_template(folder: Path) -> None:
    """A tokenizer of no known class, which puts nothing around texts."""
    described = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(described | {"post_processor": None}))
    set_json(SETTINGS, tokenizer_class="PreTrainedTokenizerFast")(folder)


ADDED = {"content": "new_word", "lstrip": False, "rstrip": False, "single_word": False}
ADDED |= {"normalized": True, "special": False}


@pytest.mark.parametrize(
    "change",
    [
        set_json(SETTINGS, do_lower_case=False),
        set_json(SETTINGS, cls_token="so", sep_token="bad"),
        set_json("special_tokens_map.json", cls_token="so"),
        set_json(SETTINGS, added_tokens_decoder={"15": ADDED}),
        set_json("added_tokens.json", new_word=15),
        without_template,
    ],
)
def test_tokens_are_those_of_transformers(change: Callable[[Path], None], tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    save_bert(folder, BertForSequenceClassification)
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(WORDS[:-1]) + "\n")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    change(folder)
    theirs: Any = AutoTokenizer.from_pretrained(folder)
    expected = [theirs(text)["input_ids"] for text in TEXTS]
    assert expected != [plain.encode(text).ids for text in TEXTS]  # the file matters
    convert_folder(folder, tmp_path / "ours")
    model = sw.load(tmp_path / "ours")
    processor = text_processor(model.config, model.assets)
    assert processor is not None
    assert [processor(text).data.tolist() for text in TEXTS] == expected
    pair = [part.data.tolist() for part in processor.pair("so good", "bad")]
    assert [*pair[0], *pair[1]] == theirs("so good", "bad")["input_ids"]
    convert_folder(tmp_path / "ours", tmp_path / "back")
    back: Any = AutoTokenizer.from_pretrained(tmp_path / "back")
    assert [back(text)["input_ids"] for text in TEXTS] == expected


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json"])
@pytest.mark.parametrize("named", [False, True])
def test_special_tokens_that_only_the_class_knows(name: str, named: bool, tmp_path: Path) -> None:
    """As in the folder of RoBERTa, whose settings name none."""
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces = [*names, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    config = RobertaConfig(
        vocab_size=len(pieces),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=20,
    )
    RobertaForMaskedLM(config).save_pretrained(tmp_path)
    made.model.save(str(tmp_path)) if name == "vocab.json" else made.save(str(tmp_path / name))
    if named:
        set_json(SETTINGS, model_max_length=18)(tmp_path)
    theirs: Any = AutoTokenizer.from_pretrained(tmp_path)
    model = sw.from_hf(tmp_path)
    processor = text_processor(model.config, model.assets)
    assert processor is not None
    assert processor("so").data.tolist() == theirs("so")["input_ids"]
    assert processor.mask == theirs.mask_token_id == 4
    assert processor.separator == theirs.sep_token_id and processor.cls == theirs.cls_token_id
    assert processor.special("pad") == theirs.pad_token_id


def test_numbers_are_those_of_the_file(tmp_path: Path) -> None:
    """Transformers gives an added token behind a gap the next number, which others have."""
    folder = tmp_path / "theirs"
    save_bert(folder, BertForSequenceClassification)
    described = json.loads((folder / "tokenizer.json").read_text())
    del described["model"]["vocab"]["where"], described["model"]["vocab"]["what"]
    described["added_tokens"].append(ADDED | {"id": 15})
    (folder / "tokenizer.json").write_text(json.dumps(described))
    model = sw.from_hf(folder)
    processor = text_processor(model.config, model.assets)
    assert processor is not None
    assert processor("so new_word").data.tolist() == [2, 5, 15, 3]
