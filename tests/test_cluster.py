"""The job files of `examples/cluster`: their schedulers accept them, and their commands are commands of sparc."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from sparc.config import ResumeOptions, RunConfig, names

CLUSTER = Path(__file__).parent.parent / "examples" / "cluster"
SLURM = CLUSTER / "train.sbatch"


def script_of(pod):
    (container,) = pod["template"]["spec"]["containers"]
    assert container["command"] == ["/bin/bash", "-c"]
    return container["args"][0]


def job():
    return yaml.safe_load((CLUSTER / "pytorchjob.yaml").read_text())


def assert_words_are_options(script):
    """Check both ways to start: a new run, and a resumed one, each with a time limit."""
    found = re.findall(r"words=\((.*)\)", script)
    assert len(found) == 2
    for words, known in zip(map(shlex.split, sorted(found)), ("config", "resume"), strict=True):
        options = [word.removeprefix("--") for word in words if word.startswith("--")]
        assert words[0] == "train"
        assert known in options
        assert set(options) <= {*names(RunConfig), "config", "resume"}
    assert re.search(r"--no-python sparc \"\$\{words\[@\]\}\" --max-time (\S+)", script)[1] == "3h50m"
    assert RunConfig(max_time="3h50m").seconds < 4 * 3600
    assert {"max-time", "shard-latents"} <= set(names(ResumeOptions))


@pytest.mark.parametrize("script", [SLURM.read_text(), *map(script_of, job()["spec"]["pytorchReplicaSpecs"].values())])
def test_scripts_are_bash_and_start_or_resume_a_run_with_a_time_limit(script):
    checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert_words_are_options(script)


def test_the_slurm_job_has_time_to_save_and_to_queue_itself_again():
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", SLURM.read_text(), re.MULTILINE))
    assert options["time"] == "04:00:00"
    assert options["ntasks-per-node"] == "1"  # torchrun starts the processes of a machine
    assert {"requeue", "nodes", "gpus-per-node", "output"} <= options.keys()
    assert os.access(SLURM, os.R_OK)


def test_the_slurm_job_resumes_and_queues_itself_again_until_the_run_is_finished(tmp_path):
    """The scheduler's commands are scripts that write down how they are called."""
    said = tmp_path / "said"
    bodies = {
        "srun": 'mkdir -p "$RUN/state"; touch "$RUN/provenance.json" "$RUN/state/step-1"; exit 1',
        "scontrol": 'if [ "$1" = show ]; then echo one; echo two; fi',
    }
    for name, body in bodies.items():
        (tmp_path / name).write_text(f'#!/bin/bash\necho {name} "$@" >> {said}\n{body}\n')
        (tmp_path / name).chmod(0o755)
    run = tmp_path / "runs" / "photos"
    place = {"SLURM_SUBMIT_DIR": tmp_path, "SLURM_NNODES": 2, "SLURM_JOB_ID": 7, "SLURM_JOB_NODELIST": "a,b"}
    variables = {**os.environ, **{name: str(value) for name, value in place.items()}, "RUN": str(run)}
    variables["PATH"] = f"{tmp_path}:{variables['PATH']}"

    def submit():
        said.write_text("")
        code = subprocess.run(["bash", SLURM], env=variables).returncode
        return code, said.read_text()

    code, calls = submit()
    assert code == 1
    assert f"sparc train --config {tmp_path}/run.toml --out {run} --max-time 3h50m" in calls
    assert "--nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint one:29500 --rdzv-id 7" in calls
    assert calls.endswith("scontrol requeue 7\n")
    code, calls = submit()
    assert f"sparc train --resume {run} --max-time 3h50m" in calls
    (run / "evaluation.json").touch()
    code, calls = submit()
    assert code == 0
    assert "requeue" not in calls


def test_the_kubernetes_manifest_has_what_the_operator_requires():
    """The required fields are those of the operator's definition of a PyTorchJob, `kubeflow.org/v1`."""
    manifest = job()
    assert (manifest["apiVersion"], manifest["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", manifest["metadata"]["name"])
    spec = manifest["spec"]
    assert spec.keys() <= {"elasticPolicy", "nprocPerNode", "pytorchReplicaSpecs", "runPolicy"}
    assert spec["nprocPerNode"] == "8"  # a string in the definition
    assert spec["runPolicy"]["cleanPodPolicy"] in ("None", "Running", "All")
    assert isinstance(spec["runPolicy"]["backoffLimit"], int)
    replicas = spec["pytorchReplicaSpecs"]
    assert set(replicas) == {"Master", "Worker"}
    assert replicas["Master"]["replicas"] == 1
    for replica in replicas.values():
        assert replica.keys() == {"replicas", "restartPolicy", "template"}
        assert replica["restartPolicy"] in ("Always", "OnFailure", "Never", "ExitCode")
        (container,) = replica["template"]["spec"]["containers"]
        assert container["name"] == "pytorch"
        assert container["image"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == int(spec["nprocPerNode"])
        volumes = {volume["name"] for volume in replica["template"]["spec"]["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
