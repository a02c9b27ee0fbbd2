"""The command on a real Ray cluster, started as a user starts it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from skillweave.corpus import clean


@pytest.mark.skipif(find_spec("ray") is None, reason="the extra corpus-ray (ray) is not installed")
@pytest.mark.parametrize("authentication", [None, "disabled"])
def test_a_cluster_writes_the_shards_of_one_process(
    write_jsonl, configure, tmp_path: Path, authentication: str | None
) -> None:
    rows = [{"text": f"The {i}th text, which is long enough to stay."} for i in range(40)]
    file = write_jsonl("texts.jsonl", [*rows, *rows[:10]])
    steps = {"kind": "length"}, {"kind": "exact_duplicates"}, {"kind": "near_duplicates"}
    config = configure(file, *steps, shards={"rows": 3})  # each shard is a piece of work
    clean(config, processes=1)
    sums = (tmp_path / "out/SHA256SUMS").read_text()
    assert sums.count("shards/") > 2

    written = config.model_dump(mode="json") | {"out": str(tmp_path / "by_ray")}
    (tmp_path / "config.yaml").write_text(json.dumps(written))
    short = tempfile.mkdtemp()  # a socket of Ray has a path of at most 107 bytes
    environment = {**os.environ, "HOME": short, "RAY_TMPDIR": short}
    environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))
    environment.pop("RAY_AUTH_MODE", None)
    if authentication:
        environment["RAY_AUTH_MODE"] = authentication
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    start = [*ray, "start", "--head", "--num-cpus", "2", "--port", "0"]
    subprocess.run([*start, "--include-dashboard", "false"], check=True, env=environment)
    try:
        command = [sys.executable, "-m", "skillweave", "clean", str(tmp_path / "config.yaml")]
        subprocess.run([*command, "--engine", "ray"], check=True, env=environment, timeout=300)
    finally:
        subprocess.run([*ray, "stop", "--force"], check=False, env=environment)
        shutil.rmtree(short, ignore_errors=True)
    assert (tmp_path / "by_ray/SHA256SUMS").read_text() == sums
