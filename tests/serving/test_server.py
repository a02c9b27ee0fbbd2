"""The command: a service in a process of its own, from its start to its graceful end."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from served import free_port, http, serving

import skillweave as sw
from skillweave import cli
from skillweave.config import ConfigError
from skillweave.model.folders import model_folder
from skillweave.serving.models import Models, Usage, split_name
from skillweave.serving.server import listen
from skillweave.serving.settings import ServiceConfig
from skillweave.weights.adapters import Adapter, frozen_part
from skillweave.weights.files import FILE, read_weights


def test_it_answers_what_it_accepted(tmp_path: Path) -> None:
    port = free_port()
    keys = tmp_path / "keys"
    keys.write_text("secret\n\n")
    words = [sys.executable, "-m", "skillweave", "serve", "skillweave/tiny"]
    words += ["--tasks", "text_to_code", "--port", str(port), "--api-keys", str(keys)]
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(words, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"})
    url, headers = f"http://127.0.0.1:{port}", {"authorization": "Bearer secret"}
    try:
        end = time.monotonic() + 400
        while time.monotonic() < end:
            try:
                assert http.get(f"{url}/ready").status_code == 200
                break
            except httpx.TransportError:
                time.sleep(0.1)
        answers, refused = asyncio.run(_stopped_while_asked(url, headers, process))
        assert process.wait(120) == 0
    finally:
        process.kill()
    assert answers > 0 and refused >= 0
    lines = [json.loads(line) for line in log.read_text().splitlines()[1:]]
    assert lines[0]["event"] == "listening" and lines[-1]["event"] == "stopped"
    told = [line for line in lines if line["event"] == "request"]
    assert all(line["status"] in (200, 503) for line in told)
    # what was accepted was answered: as many lines as answers that arrived
    assert sum(line["status"] == 200 and line["method"] == "POST" for line in told) == answers


async def _stopped_while_asked(
    url: str, headers: dict[str, str], process: subprocess.Popen
) -> tuple[int, int]:
    """How many requests were answered, and how many were not accepted, while SIGTERM came."""
    async with httpx.AsyncClient(timeout=120, headers=headers) as client:
        tasks = (await client.get(f"{url}/tasks")).json()["tasks"]
        assert [task["task"] for task in tasks] == ["text_to_code"]  # its slice alone
        assert tasks[0]["total_parameters"] < 6_000_000
        body = {"input": ["def f(x): return x"] * 20}
        asked = [
            asyncio.create_task(client.post(f"{url}/v1/embeddings", json=body)) for _ in range(20)
        ]
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        process.send_signal(signal.SIGTERM)
        found = await asyncio.gather(*asked, return_exceptions=True)
    answered = [one for one in found if isinstance(one, httpx.Response)]
    others = [one for one in found if not isinstance(one, httpx.Response)]
    assert all(isinstance(one, httpx.ConnectError | httpx.ReadError) for one in others), others
    assert all(one.status_code in (200, 503) for one in answered)
    return sum(one.status_code == 200 for one in answered), len(found) - len(answered)


def test_health_readiness_and_metrics(run: Path) -> None:
    with serving([f"run={run}"], isolate=True) as (url, _):
        http.post(f"{url}/v1/embeddings", json={"input": "red"})
        http.post(f"{url}/v1/embeddings", json={"input": ""})
        image = "data:image/png;base64,iVBORw0KGgo="  # broken: decoded in a child process
        rows = {"inputs": [{"image": image}]}
        broken = http.post(f"{url}/tasks/text_to_image", json=rows, timeout=120)
        assert broken.status_code == 400 and "input 0" in broken.json()["message"]
        text = http.get(f"{url}/metrics").text
        assert "\ntgi_request_count 3.0\n" in text and "\ntgi_request_success 1.0\n" in text
        assert 'tgi_request_failure{err="invalid_request"} 2.0' in text
        assert "_created" not in text and "_total" not in text
        assert "tgi_batch_inference_duration_bucket" in text and "\ntgi_queue_size 0.0\n" in text
        assert http.get(f"{url}/ready").status_code == 200
        assert http.get(f"{url}/docs").status_code == 404  # nothing from another host
        allowed = http.options(f"{url}/v1/embeddings", headers={"origin": "http://evil.test"})
        assert "access-control-allow-origin" not in allowed.headers


def test_models_have_names(run: Path) -> None:
    assert split_name(str(run)) == ("run", str(run))
    assert split_name("mine=skillweave/tiny") == ("mine", "skillweave/tiny")
    assert split_name("skillweave/tiny") == ("skillweave/tiny", "skillweave/tiny")


def test_mistakes_are_told(capsys: pytest.CaptureFixture, tmp_path: Path, run: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    for words, told in [
        ([str(run), "--tasks", "text_classificaton"], "did you mean 'text_classification'?"),
        (["absent"], "absent"),
        ([str(run), "--api-keys", str(empty)], "holds no token"),
        ([str(run), f"run={run}"], "two models are called 'run'"),
    ]:
        assert cli.main(["serve", *words, "--port", "0"]) == 2
        assert told in capsys.readouterr().err
    taken = listen("127.0.0.1", 0)
    taken.listen()
    with pytest.raises(ConfigError, match="give another --port"):
        listen("127.0.0.1", taken.getsockname()[1])
    taken.close()


def test_tunings_share_their_base(run: Path, tmp_path: Path) -> None:
    base = model_folder(run)
    state = read_weights(base / FILE)
    changed = {"encoder.last_norm.weight": state["encoder.last_norm.weight"] * -2}
    tuned = tmp_path / "tuned"
    shutil.copytree(base, tuned)
    (tuned / FILE).unlink()
    (tuned / "SHA256SUMS").unlink()
    Adapter(str(base), frozen_part(state, state, changed), changed).write(tuned)
    models = Models([f"run={run}", f"tuned={tuned}"], ServiceConfig(isolate=False), device="cpu")
    first, second = (one.model.state_dict() for one in models)
    shared = {name for name, x in first.items() if second[name].data_ptr() == x.data_ptr()}
    assert first.keys() - shared == changed.keys()
    found = asyncio.run(models.by_name["tuned"].encode([("text", "red")], None, Usage()))
    expected = sw.encode(tuned, "text_to_image", text=["red"])
    assert np.allclose(found, expected, atol=1e-5)
    assert not np.allclose(found, sw.encode(run, "text_to_image", text=["red"]), atol=1e-2)
    models.stop(5)


def test_merged_weights_are_made_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merged: list[str] = []
    resolve = sw.Model.resolve

    def counted(model: sw.Model, task: str) -> object:
        merged.append(task)
        return resolve(model, task)

    monkeypatch.setattr(sw.Model, "resolve", counted)
    models = Models([f"run={run}"], ServiceConfig(isolate=False, merged_tasks=1), device="cpu")
    (served,) = models

    async def ask() -> None:
        for task in ["text_to_image"] * 3 + ["text_to_code"] * 2 + ["text_to_image"]:
            await served.encode([("text", "red")], task, Usage())

    asyncio.run(ask())
    assert merged == ["text_to_image", "text_to_code", "text_to_image"]  # one is kept
    models.stop(5)
