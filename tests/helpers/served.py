"""A service in a thread, and the models that it serves in tests."""

import asyncio
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch
import uvicorn
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.decoders import ByteLevel as ByteDecoder
from tokenizers.pre_tokenizers import ByteLevel
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from skillweave.serving.app import build_app
from skillweave.serving.collections import open_collections
from skillweave.serving.models import Models
from skillweave.serving.server import configured, listen
from skillweave.serving.settings import ServiceConfig

http = httpx.Client(timeout=120)
"""For requests of tests: a busy machine may be slow."""
SPECIAL = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


def save_writer(folder: Path) -> Path:
    """A GPT-2 of random weights with a token per ASCII character."""
    letters = [c for c in sorted(ByteLevel.alphabet()) if c.isascii() or c == "Ġ"]
    vocabulary = {c: i for i, c in enumerate([*SPECIAL.values(), *letters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteDecoder()
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 128}
    ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "vocab_size": len(vocabulary)}
    model = GPT2LMHeadModel(GPT2Config(**sizes, **ids, initializer_range=1.0))
    model.eval().save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL).save_pretrained(folder)
    return folder


@contextmanager
def serving(
    paths: list[str], data: str = "", page: bool = False, tools: bool = False, **settings: Any
) -> Generator[tuple[str, Models]]:
    """The address of a service of models, and these. `data`: what the first one searches.
    `settings`: of `ServiceConfig`."""
    config = ServiceConfig(**{"isolate": False, **settings})
    opened = Models(paths, config, device="cpu")
    collections = open_collections(next(iter(opened)), data) if data else None
    with serving_app(build_app(opened, collections, page, tools), config) as address:
        yield address, opened
    opened.stop(10)


@contextmanager
def serving_app(app: Any, settings: ServiceConfig | None = None) -> Generator[str]:
    """The address of an application in a thread."""
    bound = listen("127.0.0.1", 0)
    server = uvicorn.Server(configured(app, settings or ServiceConfig()))
    thread = threading.Thread(target=asyncio.run, args=(server.serve(sockets=[bound]),))
    thread.start()
    while thread.is_alive() and not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


def free_port() -> int:
    """A port that nobody listens to."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
