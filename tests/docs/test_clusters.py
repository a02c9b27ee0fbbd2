"""The examples of batch systems are what their programs read."""

import re
import shlex
import subprocess
from pathlib import Path

import yaml
from torch.distributed.run import get_args_parser

CLUSTERS = Path(__file__).parents[2] / "docs" / "clusters"


def started(words):
    """What torchrun makes of a command line."""
    assert words[0] == "torchrun"
    return get_args_parser().parse_args(words[1:])


def test_the_script_for_slurm():
    script = CLUSTERS / "slurm.sh"
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", text, re.MULTILINE))
    assert options["signal"].startswith("TERM@") and options["ntasks-per-node"] == "1"
    command = text[text.index("torchrun") :].replace("\\\n", " ")
    found = started(shlex.split(command))
    assert found.module and found.training_script == "skillweave"
    assert found.training_script_args[0] == "train"
    assert found.nproc_per_node == options["gpus-per-node"] and found.rdzv_backend == "c10d"


def test_the_job_for_kubernetes():
    job = yaml.safe_load((CLUSTERS / "kubernetes.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    worker = job["spec"]["pytorchReplicaSpecs"]["Worker"]
    elastic = job["spec"]["elasticPolicy"]
    assert elastic["minReplicas"] <= worker["replicas"] <= elastic["maxReplicas"]
    described = worker["template"]["spec"]
    (container,) = described["containers"]
    found = started([*container["command"], *container["args"]])
    assert found.module and found.training_script == "skillweave"
    assert found.training_script_args[0] == "train"
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in described["volumes"]}
    assert container["resources"]["limits"]["nvidia.com/gpu"] == int(job["spec"]["nprocPerNode"])
