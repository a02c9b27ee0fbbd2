"""Tools over the Model Context Protocol, called by its official client over loopback."""

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from served import http, serving
from tiny_run import COLOURS

import skillweave as sw

pytest.importorskip("mcp", reason="the extra mcp is not installed")
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

KEY = "secret"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tools")
    for colour in COLOURS:
        Image.new("RGB", (20, 20), colour).save(folder / f"{colour}.png")
    return folder


@pytest.fixture(scope="module")
def url(run: Path, writer: Path, pictures: Path) -> Iterator[str]:
    paths = [f"run={run}", f"writer={writer}"]
    with serving(paths, data=str(pictures), tools=True, api_keys=(KEY,)) as (found, _):
        yield found


def call(url: str, *calls: tuple[str, dict[str, Any]]) -> tuple[set[str], list[Any]]:
    """The names of the tools, and the results of calls."""

    async def talk() -> tuple[set[str], list[Any]]:
        async with (
            httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"}, timeout=120) as client,
            streamable_http_client(f"{url}/mcp", http_client=client) as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = (await session.list_tools()).tools
            assert all(tool.description for tool in tools)
            return {tool.name for tool in tools}, [await session.call_tool(*one) for one in calls]

    return asyncio.run(talk())


def uri(file: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"


def test_assistants_use_what_the_models_can_do(url: str, run: Path, pictures: Path) -> None:
    data = run.parent / "data"
    labels, picture = ["red", "blue"], data / "test-0.png"
    names, (found, classes, heard, written) = call(
        url,
        ("search", {"query": "red", "k": 2}),
        ("classify", {"labels": labels, "file": uri(picture, "image/png")}),
        ("transcribe", {"recording": uri(data / "test-0.wav", "audio/wav")}),
        ("write", {"text": "ab", "max_tokens": 3}),
    )
    assert names == {"search", "classify", "transcribe", "write"}
    predictor = sw.Predictor(run)
    words = predictor.encode("text_to_image", None, text=["red", *labels])
    images = predictor.encode("text_to_image", None, image=sorted(map(str, pictures.iterdir())))
    hits = found.structuredContent["result"]
    assert np.allclose(
        [hit["score"] for hit in hits], np.sort(images @ words[0])[:-3:-1], atol=1e-5
    )
    (image,) = predictor.encode("text_to_image", None, image=[picture])
    target: Any = predictor.model.targets[predictor.task("text_to_image").target_name]
    logits = float(target.scale.detach()) * words[1:] @ image
    shares = np.exp(logits) / np.exp(logits).sum()
    told = json.loads(classes.content[0].text)
    assert np.allclose([told[label] for label in labels], shares, atol=1e-4)
    (said,) = predictor.predict("speech_recognition", [{"sound": str(data / "test-0.wav")}])
    assert heard.content[0].text == said["transcript"] and not heard.isError
    assert not written.isError and len(written.content[0].text) <= 3


def test_faults_are_told_as_those_of_endpoints(url: str) -> None:
    _, (path, both, many, unknown) = call(
        url,
        ("transcribe", {"recording": "/etc/passwd"}),
        ("classify", {"labels": ["a", "b"]}),
        ("classify", {"labels": ["a"] * 300, "text": "b"}),
        ("search", {"query": "a", "within": "sound"}),
    )
    assert all(one.isError for one in (path, both, many, unknown))
    assert "data URI" in path.content[0].text and "either a text" in both.content[0].text
    assert "'sound' is searched here" in unknown.content[0].text
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    assert http.post(f"{url}/mcp", json=body).status_code == 401  # the same protection
