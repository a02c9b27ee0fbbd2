"""The same application on Ray Serve, started by the command and asked over loopback."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import httpx
import numpy as np
import pytest
from served import free_port, http

import skillweave as sw
from skillweave import cli
from skillweave.config import ConfigError
from skillweave.serving import ray_serve

there = all(find_spec(name) for name in ray_serve.REQUIRED)


@pytest.mark.skipif(not there, reason="the extra serve-ray (ray[serve]) is not installed")
def test_replicas_answer_as_one_process(run: Path, tmp_path: Path) -> None:
    port = free_port()
    words = [sys.executable, "-m", "skillweave", "serve", f"run={run}", "--no-page", "--no-isolate"]
    words += ["--engine", "ray", "--port", str(port), "--device", "cpu"]
    short = tempfile.mkdtemp()  # a socket of Ray has a path of at most 107 bytes
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_TMPDIR": short}
    environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))
    url, log = f"http://127.0.0.1:{port}", tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(words, stdout=file, stderr=file, env=environment)
    try:
        end = time.monotonic() + 300
        while not _ready(url):
            assert time.monotonic() < end and process.poll() is None, log.read_text()
            time.sleep(0.5)
        answer = http.post(
            f"{url}/v1/embeddings", json={"input": "red", "model": "run:text_to_image"}
        )
        found = answer.json()["data"][0]["embedding"]
        assert np.allclose(found, sw.encode(run, "text_to_image", text=["red"])[0], atol=1e-5)
        assert http.post(f"{url}/v1/embeddings", json={"input": ""}).status_code == 400
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0, log.read_text()
    finally:
        process.kill()
        shutil.rmtree(short, ignore_errors=True)


def _ready(url: str) -> bool:
    try:
        return http.get(f"{url}/ready").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(
    ("words", "told"),
    [(["--no-page"], "--replicas needs --engine ray"), (["--engine", "ray"], "--no-page")],
)
def test_replicas_that_cannot_be_are_told(
    words: list[str], told: str, capsys: pytest.CaptureFixture
) -> None:
    assert cli.main(["serve", "skillweave/tiny", "--replicas", "2", *words]) == 2
    assert told in capsys.readouterr().err


def test_ray_serve_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_serve, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"skillweave\[serve-ray\]"):
        ray_serve.require_ray()
