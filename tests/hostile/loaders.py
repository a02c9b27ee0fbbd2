"""Everything that reads files of others: how to write a small valid input, and how to read it."""

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow
import pyarrow.parquet
import soundfile
import torch
import yaml
from corpus_files import HTML, PAGE, encoded, photo, warc
from documentation_data import write_lines
from hf_folder import save_bert
from hf_generation import T5, WAV2VEC2, WHISPER
from hf_references import CLIP, GPT2, LLAMA
from hf_vision import VIT
from PIL import Image
from tiny_run import MODEL, add_journal, save_run

import skillweave as sw
from skillweave.config.data import DataConfig, LimitsConfig
from skillweave.config.streams import (
    ImageStream,
    TrainedTokenizerConfig,
    VideoStream,
    WaveformStream,
)
from skillweave.corpus import SOURCES, STEPS
from skillweave.data.processors import train_tokenizer
from skillweave.data.processors.image import ImageProcessor
from skillweave.data.processors.sound import SoundProcessor
from skillweave.data.processors.tokenizer import load_tokenizer, special_names
from skillweave.data.processors.video import VideoProcessor
from skillweave.data.sharding import ShardingConfig, write_shards
from skillweave.data.sources import open_rows, open_source
from skillweave.data.sources.functions import read_packages
from skillweave.data.sources.shards import SHARDED, open_shards
from skillweave.evaluation.zero_shot import read_tasks
from skillweave.inference import open_run
from skillweave.inference.inputs import read_inputs
from skillweave.interop.checkpoints import Checkpoint
from skillweave.interop.tencentpretrain.weights import from_tencent
from skillweave.recipe import read_recipe
from skillweave.retrieval.stored import open_index
from skillweave.weights.files import list_weights, read_weights

TEXTS = ["so good", "so bad", "a cat", "这是 中文"]
ROWS = [
    {"key": f"k{i}", "text": t, "label": "ab"[i % 2], "split": s, "n": i, "many": [t, "x"]}
    for i, (t, s) in enumerate(zip(TEXTS * 3, ["train", "validation", "test"] * 4, strict=True))
]


@dataclass(frozen=True)
class Loader:
    """`write` makes a valid input in an empty folder, `read` reads it. `damaged`: the pattern of the
    files that are damaged. `weight`: how often it is tried, relative to others. `named`: whether an
    error names the file; samples of media are named by those who read them."""

    write: Callable[[Path], None]
    read: Callable[[Path], Any]
    damaged: str = "**/*"
    weight: float = 1
    named: bool = True


LOADERS: dict[str, Loader] = {}


def add(name: str, read: Callable[[Path], Any], damaged: str = "**/*", **options: Any) -> Any:
    def register(write: Callable[[Path], None]) -> Callable[[Path], None]:
        LOADERS[name] = Loader(write, read, damaged, **options)
        return write

    return register


def read_all(path: str) -> None:
    """All rows, in each way in which a program reads them."""
    table = open_rows(path)
    for name in table.columns:
        if name not in table.media:
            table.column(name)
    for i in range(min(len(table), 20)):
        table.read(i, table.columns)
        table.locate(i)
        table.stable_id(i)
    data = DataConfig(path=path)
    for split in ("train", "test"):
        try:
            list(open_source(data, split))
        except sw.ConfigError:
            continue


# Settings

RECIPE = {
    "name": "small",
    "model": {
        "width": 16,
        "streams": {"text": {"vocabulary": 80}, "image": {"size": 16, "patch": 8}},
        "encoder": {"layers": 2, "heads": 2, "sparse": {"qkv": {"route": "skill"}}},
        "targets": {"classification": {"kind": "classification"}},
    },
    "tasks": {
        "text_classification": {"data": {"path": "a.jsonl", "columns": {"text": "t"}}},
        "text_to_image": {"data": {"path": {"train": "b.tar"}}, "weight": 2.0, "batch_size": 4},
    },
    "training": {
        "steps": 10,
        "optimizer": {"learning_rate": 0.001},
        "seed": 1,
        "precision": "bf16",
    },
}


@add("recipe", lambda folder: read_recipe(folder / "recipe.yaml"), weight=2)
def write_recipe(folder: Path) -> None:
    (folder / "base.yaml").write_text(yaml.safe_dump({"training": RECIPE["training"]}))
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"base": "base.yaml", **RECIPE}))


def read_overrides(folder: Path) -> None:
    given = (folder / "settings.txt").read_bytes().decode("utf-8", "surrogateescape")
    read_recipe(folder / "recipe.yaml", given.split("\n"))


@add("settings on the command line", read_overrides, "settings.txt")
def write_overrides(folder: Path) -> None:
    write_recipe(folder)
    (folder / "settings.txt").write_text("training.steps=5\nmodel.encoder={layers: 3, heads: 2}")


@add("model in YAML", lambda folder: sw.ModelConfig.from_file(folder / "model.yaml"))
def write_model_yaml(folder: Path) -> None:
    (folder / "model.yaml").write_text(yaml.safe_dump(RECIPE["model"]))


@add("model in JSON", lambda folder: sw.ModelConfig.from_file(folder / "model.json"))
def write_model_json(folder: Path) -> None:
    (folder / "model.json").write_text(json.dumps(RECIPE["model"]))


TENCENT = {
    "emb_size": 15,
    "feedforward_size": 37,
    "hidden_size": 15,
    "hidden_act": "gelu",
    "heads_num": 3,
    "layers_num": 3,
    "max_seq_length": 13,
    "dropout": 0.1,
    "embedding": ["word", "pos", "seg"],
    "encoder": "transformer",
    "mask": "fully_visible",
    "target": ["mlm", "sp"],
}


@add("TencentPretrain configuration", lambda folder: sw.ModelConfig.from_file(folder / "t.json"))
def write_tencent_config(folder: Path) -> None:
    (folder / "t.json").write_text(json.dumps(TENCENT))


@add("zero-shot tasks", lambda folder: read_tasks(folder / "unseen.yaml"))
def write_zero_shot(folder: Path) -> None:
    tasks = {"unseen": {"kind": "image_naming", "classes": ["a", "b"], "data": {"path": "x"}}}
    (folder / "unseen.yaml").write_text(yaml.safe_dump({"tasks": tasks}))


# Data


def add_table(name: str, suffix: str, weight: float = 1) -> Any:
    def read(folder: Path) -> None:
        path = str(folder / f"rows{suffix}")
        read_all(path)
        if suffix in SHARDED:
            table = open_shards(path)
            for index in range(len(table)):
                table.read(index, table.columns)
        read_inputs(path, ["text"])

    return add(name, read, f"rows{suffix}", weight=weight)


@add_table("JSON lines", ".jsonl")
def write_json_lines(folder: Path) -> None:
    write_lines(folder / "rows.jsonl", ROWS)


def write_cells(folder: Path, suffix: str, delimiter: str) -> None:
    cells = [["key", "text", "label"], *([row["key"], row["text"], "a"] for row in ROWS)]
    text = "\n".join(delimiter.join(line) for line in cells)
    (folder / f"rows{suffix}").write_text(text, "utf-8")


@add_table("CSV", ".csv")
def write_csv(folder: Path) -> None:
    write_cells(folder, ".csv", ",")


@add_table("TSV", ".tsv")
def write_tsv(folder: Path) -> None:
    write_cells(folder, ".tsv", "\t")


@add_table("text", ".txt")
def write_text(folder: Path) -> None:
    (folder / "rows.txt").write_text("\n".join(TEXTS), "utf-8")


@add_table("Parquet", ".parquet", 2)
def write_parquet(folder: Path) -> None:
    rows = [{**row, "image": {"bytes": b"12", "path": "x"}} for row in ROWS]
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, folder / "rows.parquet", row_group_size=5)


@add(
    "token shards", lambda folder: read_all(f"{folder}/shards/*.arrow"), "shards/*.arrow", weight=2
)
def write_arrow(folder: Path) -> None:
    write_json_lines(folder)
    train_tokenizer(TEXTS, TrainedTokenizerConfig(), 200).save(str(folder / "tokenizer.json"))
    source, tokenizer = str(folder / "rows.jsonl"), str(folder / "tokenizer.json")
    list(write_shards(ShardingConfig(source, "text", tokenizer, str(folder / "shards"), 5)))


@add_table("WebDataset", ".tar", 2)
def write_tar(folder: Path) -> None:
    import io
    import tarfile

    with tarfile.open(folder / "rows.tar", "w") as tar:
        for i, row in enumerate(ROWS[:6]):
            members = {"txt": row["text"].encode(), "json": json.dumps({"n": i}).encode()}
            for suffix, content in {**members, "jpg": b"12345"}.items():
                info = tarfile.TarInfo(f"{i:04}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


GLUE = {
    "train.tsv": "sentence\tlabel\nso good\t1\nso bad\t0\n",
    "dev.tsv": "sentence\tlabel\na\t1\n",
}


@add("GLUE", lambda folder: read_all(f"glue:{folder}/SST-2"))
def write_glue(folder: Path) -> None:
    (folder / "SST-2").mkdir()
    for name, text in GLUE.items():
        (folder / "SST-2" / name).write_text(text)


C3 = [[["A says."], [{"question": "Who?", "choice": ["A", "B"], "answer": "A"}], "1"]]
CHID = {"content": ["It is #idiom0001# today."], "candidates": ["a", "b"]}
ANSWERS = [{"text": "cat", "answer_start": 2}]
QUESTION = {"id": "1", "question": "What?", "answers": ANSWERS}
SQUAD = {"data": [{"paragraphs": [{"context": "A cat.", "qas": [QUESTION]}]}]}
CLUE = {
    "tnews": {"train.json": '{"sentence": "好", "label": "1"}\n{"sentence": "坏", "label": "2"}\n'},
    "c3": {"c3-train.json": json.dumps(C3)},
    "chid": {
        "train.json": json.dumps(CHID),
        "train_answer.json": json.dumps({"#idiom0001#": 1}),
    },
    "cmrc2018": {"train.json": json.dumps(SQUAD)},
}


def read_clue(folder: Path) -> None:
    read_all(f"clue:{next(folder.iterdir())}")


for task, files in CLUE.items():

    @add(f"CLUE {task}", read_clue, weight=0.5)
    def write_clue(folder: Path, task: str = task, files: dict[str, str] = files) -> None:
        (folder / task).mkdir()
        for name, text in files.items():
            (folder / task / name).write_text(text, "utf-8")


@add("SQuAD", lambda folder: read_all(f"squad:{folder}/train.json"))
def write_squad(folder: Path) -> None:
    (folder / "train.json").write_text(json.dumps(SQUAD))


@add("VQA v2", lambda folder: read_all(f"vqa:{folder}"))
def write_vqa(folder: Path) -> None:
    question = {"image_id": 1, "question": "What is it?", "question_id": 2}
    told = {"question_id": 2, "answers": [{"answer": "a"}], "answer_type": "other"}
    for kind, one in (("questions", question), ("annotations", told)):
        content = {"data_subtype": "train2014", kind: [one]}
        (folder / f"v2_{kind}.json").write_text(json.dumps(content))


@add("Python source", lambda folder: read_packages({"a": folder / "a.py"}))
def write_source(folder: Path) -> None:
    body = "    total = 0\n    for x in xs:\n        total += x\n    return total\n"
    (folder / "a.py").write_text(f'def add(xs):\n    """Add all numbers of a list."""\n{body}')


@add("folder of captions", lambda folder: read_all(str(folder)))
def write_folder(folder: Path) -> None:
    write_lines(folder / "metadata.jsonl", [{"file_name": "a.png", "text": "a"}])
    Image.new("RGB", (8, 8)).save(folder / "a.png")


# Media


ISOLATED = LimitsConfig(isolate=True)
"""Decoders in a child process with limits of time and memory, as a service has them."""


def add_media(name: str, processor: Any, stream: Any) -> Any:
    """Two loaders: one decodes here, where a crash is a fault, and one in a child process, whose
    death costs the file alone."""

    def reading(limits: LimitsConfig) -> Callable[[Path], Any]:
        read = processor(stream, limits)
        return lambda folder: [read(str(file)) for file in folder.iterdir()]

    def register(write: Callable[[Path], None]) -> None:
        add(name, reading(LimitsConfig()), weight=3, named=False)(write)
        add(f"{name} in a child process", reading(ISOLATED), weight=3, named=False)(write)

    return register


@add_media("pictures", ImageProcessor, ImageStream(size=16, patch=8))
def write_pictures(folder: Path) -> None:
    picture = Image.fromarray(np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3))
    for suffix in ("png", "jpg", "webp", "gif", "bmp", "tiff"):
        picture.save(folder / f"a.{suffix}")


@add_media("sounds", SoundProcessor, WaveformStream())
def write_sounds(folder: Path) -> None:
    wave = np.sin(np.arange(4000) / 20).astype(np.float32)
    for suffix in ("wav", "flac", "mp3", "ogg"):
        soundfile.write(folder / f"a.{suffix}", wave, 16_000)


@add_media("clips", VideoProcessor, VideoStream(size=16, frames=3))
def write_clips(folder: Path) -> None:
    for suffix, codec in {"mp4": "h264", "webm": "libvpx", "avi": "mpeg4"}.items():
        with av.open(str(folder / f"a.{suffix}"), "w") as container:
            stream = container.add_stream(codec, rate=6)
            stream.width = stream.height = 32
            stream.pix_fmt = "yuv420p"
            for shade in range(6):
                picture = Image.new("RGB", (32, 32), (40 * shade, 0, 0))
                container.mux(stream.encode(av.VideoFrame.from_image(picture)))
            container.mux(stream.encode())


# Models


def read_tokenizer_folder(folder: Path) -> None:
    special = special_names(folder)
    load_tokenizer(folder, special).encode("so good 中文")


@add("tokenizer", read_tokenizer_folder, weight=2)
def write_tokenizer(folder: Path) -> None:
    train_tokenizer(TEXTS, TrainedTokenizerConfig(), 200).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"cls_token": "[CLS]", "mask_token": {"content": "[MASK]"}})
    )


@add("vocabulary", read_tokenizer_folder)
def write_vocabulary(folder: Path) -> None:
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nso\ngood\n##s\n中\n")


def read_safetensors(folder: Path) -> None:
    list_weights(folder / "a.safetensors")
    read_weights(folder / "a.safetensors")


@add("safetensors", read_safetensors)
def write_safetensors(folder: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.ones(3, 4), "b": torch.ones(5).half()}, folder / "a.safetensors")


@add("pickle", lambda folder: dict(Checkpoint(folder)))
def write_pickle(folder: Path) -> None:
    torch.save({"a": torch.ones(3, 4), "b": torch.ones(5).half()}, folder / "pytorch_model.bin")


HUGGING_FACE: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT2": ("GPT2LMHeadModel", GPT2),
    "Llama": ("LlamaForCausalLM", LLAMA),
    "CLIP": ("CLIPModel", CLIP),
    "T5": ("T5ForConditionalGeneration", T5),
    "Whisper": ("WhisperForConditionalGeneration", WHISPER),
    "Wav2Vec2": ("Wav2Vec2ForCTC", WAV2VEC2),
    "ViT": ("ViTForImageClassification", VIT),
}


@add("Hugging Face BERT", lambda folder: sw.load(folder / "bert"), weight=2)
def write_bert(folder: Path) -> None:
    from transformers import BertForSequenceClassification

    save_bert(folder / "bert", BertForSequenceClassification, id2label={0: "a", 1: "b"})


for family, (architecture, options) in HUGGING_FACE.items():

    @add(f"Hugging Face {family}", lambda folder: sw.load(folder), weight=0.5)
    def write_family(
        folder: Path,
        family: str = family,
        architecture: str = architecture,
        options: dict[str, Any] = options,
    ) -> None:
        import transformers

        config = getattr(transformers, f"{family}Config")(**options)
        getattr(transformers, architecture)(config).save_pretrained(folder)
        if family in ("CLIP", "ViT"):
            transformers.ViTImageProcessor(size={"height": 12, "width": 12}).save_pretrained(folder)
        if family == "Whisper":
            bins = options["num_mel_bins"]
            transformers.WhisperFeatureExtractor(feature_size=bins).save_pretrained(folder)
        if family == "Wav2Vec2":
            characters = {name: i for i, name in enumerate(["<pad>", "<unk>", "|", "a", "b"])}
            (folder / "vocab.json").write_text(json.dumps(characters))
        if family in ("GPT2", "Llama", "T5"):
            transformers.GenerationConfig(num_beams=2).save_pretrained(folder)


def read_tencent(folder: Path) -> None:
    from_tencent(folder / "model.bin", sw.ModelConfig.from_file(folder / "t.json"))


@add("TencentPretrain checkpoint", read_tencent)
def write_tencent(folder: Path) -> None:
    from hf_vision import BERT
    from tencent_names import bert_pretraining
    from transformers import BertConfig, BertForPreTraining

    theirs = BertForPreTraining(BertConfig(**BERT))
    torch.save(bert_pretraining(theirs.state_dict()), folder / "model.bin")
    write_tencent_config(folder)


TASK = {"kind": "text_classification", "data": {"path": "rows.jsonl"}, "batch_size": 4}


def text_run(folder: Path) -> Path:
    """A run over text and pictures, and its data."""
    write_json_lines(folder)
    path = str(folder / "rows.jsonl")
    tasks = {"text_classification": {"data": {"path": path}, "batch_size": 4}}
    model = {"width": 16, "streams": {"text": MODEL["streams"]["text"]}}
    model["encoder"] = {"layers": 1, "heads": 2, "sparse": {"qkv": {"route": "skill"}}}
    described = {"model": model, "tasks": tasks, "output": str(folder / "run")}
    run = save_run({**described, "training": {"steps": 1}})
    add_journal(run)
    without_checksums(run)
    return run


def without_checksums(folder: Path) -> None:
    """Remove the lists of checksums, so that damage reaches the parsers."""
    for file in folder.rglob("SHA256SUMS"):
        file.unlink()


def read_run(folder: Path) -> None:
    model, recipe = open_run(folder / "run")
    recipe.task("text_classification")
    sw.predict(model, "text_classification", ["so good"])


@add("run", read_run, "run/**/*", weight=2, named=False)
def write_run(folder: Path) -> None:
    text_run(folder)


@add("adapter", lambda folder: sw.load(folder / "tuned"), "tuned/**/*")
def write_adapter(folder: Path) -> None:
    from training_recipes import tuning_recipe

    from skillweave.training import train

    base = train(tuning_recipe(folder / "base"), quiet=True)
    run = train(tuning_recipe(folder / "lora", start_from=base, tuning="lora"), quiet=True)
    shutil.copytree((run / "last").resolve(), folder / "tuned")
    without_checksums(folder)


@cache
def searcher() -> tuple[Any, Path]:
    import tempfile

    from tiny_run import make_run

    run = make_run(Path(tempfile.mkdtemp()))
    return sw.Predictor(run), run


def read_index(folder: Path) -> None:
    predictor, _ = searcher()
    index = open_index(predictor, folder, "text_to_image", "image", folder / "pictures")
    index.search(2, text="red")


@add("index", read_index, "index/**/*")
def write_index(folder: Path) -> None:
    (folder / "pictures").mkdir()
    for i in range(3):
        Image.new("RGB", (8, 8), (80 * i, 0, 0)).save(folder / "pictures" / f"{i}.png")
    read_index(folder)
    without_checksums(folder)


# Raw data of a corpus

CORPUS_STEPS = {"warc": ("extract", "pairs"), "pages": ("extract", "pairs")}


def read_corpus(kind: str) -> Callable[[Path], None]:
    """All rows of a source, through the steps that read what others wrote."""

    def read(folder: Path) -> None:
        source = SOURCES[kind](path=f"{folder}/corpus.*", max_bytes=2**20)
        rows = [row for unit in source.units() for part in unit for row in source.read(part)]
        good = [{"id": "", "file": "", "page": "", **row} for row in rows if isinstance(row, dict)]
        for step in (*CORPUS_STEPS.get(kind, ()), "repair", "unicode", "language", "picture"):
            list(STEPS[step]().run(good))

    return read


@add("corpus of JSON lines", read_corpus("jsonl"))
def write_corpus_lines(folder: Path) -> None:
    write_lines(folder / "corpus.jsonl", [{"text": text, "title": "t"} for text in TEXTS])


@add("corpus of packed texts", read_corpus("text"))
def write_corpus_texts(folder: Path) -> None:
    (folder / "corpus.gz").write_bytes(gzip.compress("\n".join(TEXTS).encode("gb18030")))


@add("corpus of Parquet files", read_corpus("parquet"))
def write_corpus_table(folder: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"text": TEXTS}), folder / "corpus.parquet")


@add("corpus of pages", read_corpus("pages"))
def write_corpus_pages(folder: Path) -> None:
    (folder / "corpus.html").write_text(PAGE, "utf-8")


@add("corpus of web archives", read_corpus("warc"), weight=2)
def write_corpus_archive(folder: Path) -> None:
    pages = [(f"http://a/{i}", dict(HTML), PAGE.encode()) for i in range(2)]
    (folder / "corpus.warc.gz").write_bytes(warc(*pages))


@add("corpus of WebDataset", read_corpus("webdataset"))
def write_corpus_samples(folder: Path) -> None:
    with tarfile.open(folder / "corpus.tar", "w") as tar:
        for name, data in (("1.txt", b"a text"), ("1.png", encoded(photo(1))), ("1.json", b"{}")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
