"""Trainings by several processes: bytes on a real link beside the cost model, kills at random moments, and speed.

python benchmarks/distributed.py bytes              two network namespaces with a link between them; needs root
python benchmarks/distributed.py cut                the same; takes the link down
python benchmarks/distributed.py kills [--times 20] [--seconds 20]
python benchmarks/distributed.py speed [--batch-size 4096] [--latents 8192]

`bytes` compares what the kernel counted on the link with `sparc.training.cost_model`. `cut` measures how long the
processes of a training need to notice that the network is gone. `kills` kills a random process of a training under
torchrun at a random moment, resumes it, and compares the weights with those of an undisturbed one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import torch
from safetensors.torch import load_file

from sparc.config import SpaceConfig, TrainingConfig
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.training.cost_model import Mesh, Work, sent_bytes
from sparc.training.distributed import Rows, joined
from sparc.training.loader import EVERY, FeaturesInMemory, Loader
from sparc.training.sharding import SpaceShard
from sparc.training.trainer import Training

WIDTHS = {"a": 384, "b": 256, "c": 128}
STEPS, WARM_UP = 20, 3
CASES = {
    "samples split": (Mesh(2, 1), SpaceConfig(streams=WIDTHS, n_latents=2048, k=32), 512),
    "samples split, few kept": (Mesh(2, 1), SpaceConfig(streams=WIDTHS, n_latents=8192, k=8), 64),
    "latents split": (Mesh(1, 2), SpaceConfig(streams=WIDTHS, n_latents=2048, k=32), 512),
    "latents split, local": (Mesh(1, 2), SpaceConfig(streams=WIDTHS, n_latents=2048, k=32, selection="local"), 512),
}


def steps(shape: SpaceConfig, batch_size: int, shards: int, count: int, link: str | None = None) -> dict[str, float]:
    """Take some steps in this process, one of those that the environment describes; return seconds and bytes sent."""
    torch.set_num_threads(1)
    config = TrainingConfig(epochs=10**6, batch_size=batch_size, dead_after=10**9)
    draw = torch.Generator().manual_seed(0)
    features = FeaturesInMemory(
        {name: [torch.randn(2 * batch_size, width, generator=draw)] for name, width in shape.streams.items()}
    )

    def measure(ranks) -> dict[str, float]:
        space = SharedLatentSpace(shape) if shards == 1 else SpaceShard(shape, ranks)
        rows = None if ranks is None else Rows.of(batch_size, ranks.samples)
        training = Training(space, config, lacking=False, ranks=ranks, rows=rows)
        source = iter(Loader(features, config, rows=EVERY if rows is None else rows.some))
        seconds, active = [], []
        for number in range(WARM_UP + count):
            if number == WARM_UP:
                before = sent_on(link)
            began = time.perf_counter()
            training.advance(space.normalize(next(source)))
            if number >= WARM_UP:
                seconds.append(time.perf_counter() - began)
                active.append(float((training.counters.samples_since_active == 0).any(dim=0).float().mean()))
        sent = (sent_on(link) - before) / count
        return {"seconds": statistics.median(seconds), "sent": sent, "active": statistics.mean(active)}

    if "WORLD_SIZE" not in os.environ:
        return measure(None)
    with joined() as every:
        return measure(every.arranged(shards, "cpu"))


def sent_on(link: str | None) -> int:
    """Return the bytes that the kernel has sent on a network link."""
    return 0 if link is None else int(Path(f"/sys/class/net/{link}/statistics/tx_bytes").read_text(encoding="ascii"))


def started(rank: int, size: int, address: str, words: list[str], before: list[str], **more: str) -> subprocess.Popen:
    """Start this file as one process of several."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": address, "MASTER_PORT": 29871}
    variables = {**os.environ, **{name: str(value) for name, value in place.items()}, "OMP_NUM_THREADS": "1", **more}
    command = [*before, sys.executable, __file__, *words]
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True)


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[str, str]]:
    """Make two network namespaces with a link between them, `link0` and `link1`, at 10.9.9.1 and 10.9.9.2."""
    hosts = ("sparc-bench-0", "sparc-bench-1")
    try:
        for host in hosts:
            ip("netns", "add", host)
        ip("link", "add", "link0", "netns", hosts[0], "type", "veth", "peer", "name", "link1", "netns", hosts[1])
        for number, host in enumerate(hosts):
            ip("-n", host, "addr", "add", f"10.9.9.{number + 1}/24", "dev", f"link{number}")
            ip("-n", host, "link", "set", f"link{number}", "up")
            ip("-n", host, "link", "set", "lo", "up")
        yield hosts
    finally:
        for host in hosts:
            subprocess.run(["ip", "netns", "del", host], check=False)


def ip(*words: str) -> None:
    """Run the command of that name."""
    subprocess.run(["ip", *words], check=True)


def on_both(hosts: tuple[str, str], name: str, count: int) -> list[subprocess.Popen]:
    """Start some steps of a case, one process on each host."""
    return [
        started(
            number,
            2,
            "10.9.9.1",
            ["one", name, f"link{number}", str(count)],
            ["ip", "netns", "exec", host],
            GLOO_SOCKET_IFNAME=f"link{number}",
        )
        for number, host in enumerate(hosts)
    ]


def bytes_on_a_link() -> None:
    """Compare the bytes per step on a link between two namespaces with those of the cost model."""
    with two_hosts() as hosts:
        print("| case | measured MB per step | model | ratio |\n| --- | ---: | ---: | ---: |")
        for name, (mesh, shape, batch_size) in CASES.items():
            ranks = on_both(hosts, name, STEPS)
            found = [json.loads(one.communicate(timeout=600)[0].splitlines()[-1]) for one in ranks]
            measured = statistics.mean(one["sent"] for one in found)
            work = Work(
                shape.streams,
                shape.n_latents,
                shape.k,
                batch_size,
                selects_alone=shape.selection == "local",
                active=found[0]["active"],
            )
            model = sum(sent_bytes(work, mesh).values())
            print(f"| {name} | {measured / 1e6:.2f} | {model / 1e6:.2f} | {measured / model:.3f} |", flush=True)


def cut() -> None:
    """Take the link between two hosts down in the midst of a training, and print when each process ends."""
    with two_hosts() as hosts:
        ranks = dict(enumerate(on_both(hosts, "samples split", 10**6)))
        sent = ["ip", "netns", "exec", hosts[0], "cat", "/sys/class/net/link0/statistics/tx_bytes"]
        while int(subprocess.run(sent, capture_output=True, check=True).stdout) < 3e8:  # two dozen steps
            time.sleep(0.5)
        ip("-n", hosts[1], "link", "set", "link1", "down")
        began = time.monotonic()
        while ranks:
            for rank in [rank for rank, one in ranks.items() if one.poll() is not None]:
                code = ranks.pop(rank).returncode
                print(f"process {rank} ended with code {code} after {time.monotonic() - began:.0f} s", flush=True)
            time.sleep(0.1)


def kills(times: int, seconds: float) -> None:
    """Kill processes of a training at random moments, resume it, and compare its weights."""
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as place, (Path(place) / "log").open("w", encoding="utf-8") as log:
        folder = Path(place)
        words = imported(folder)
        torchrun = [str(Path(sys.executable).with_name("torchrun")), "--nproc-per-node", "2", "--no-python"]
        sparc = [sys.executable, "-m", "sparc"]
        subprocess.run([*sparc, *words, "--out", "alone"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        done, longest = 0, 0.0
        command = [*words, "--out", "killed"]
        while True:
            training = subprocess.Popen(
                [*torchrun, *sparc, *command], cwd=folder, stdout=subprocess.DEVNULL, stderr=log
            )
            if done < times:
                while training.poll() is None and not (workers := workers_of(training.pid)):
                    time.sleep(0.1)
                time.sleep(draw.uniform(0, seconds))
                if training.poll() is None:
                    os.kill(draw.choice(workers), signal.SIGKILL)
                    began = time.monotonic()
                    training.wait(90)
                    took, done = time.monotonic() - began, done + 1
                    longest = max(longest, took)
                    kept = sorted(path.stem for path in (folder / "killed" / "state").glob("step-*"))
                    print(f"kill {done}: all ended in {took:.1f} s; {', '.join(kept) or 'no checkpoint'}", flush=True)
            training.wait(900)
            if (folder / "killed" / "provenance.json").is_file():
                command = ["train", "--resume", "killed"]
            if training.returncode == 0:
                break
        one, other = (load_file(folder / name / "model.safetensors") for name in ("alone", "killed"))
        apart = max(float((one[name] - other[name]).abs().max()) for name in one)
        print(f"{done} kills, the slowest end {longest:.1f} s; largest difference of a weight {apart:.2g}")


def imported(folder: Path) -> list[str]:
    """Make a folder of imported features, and return the command of a training on them."""
    draw = np.random.default_rng(0)
    causes = np.maximum(draw.normal(size=(2000, 16)), 0)
    for name in ("a", "b"):
        np.save(folder / f"{name}.npy", (causes @ draw.normal(size=(16, 64)) + 0.1).astype(np.float32))
    (folder / "ids.txt").write_text("\n".join(map(str, range(2000))), encoding="utf-8")
    streams = [word for name in ("a", "b") for word in ("--stream", f"{name}={name}.npy")]
    command = [sys.executable, "-m", "sparc", "import", "features", *streams, "--ids", "ids.txt", "--out", "features"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return [
        "train",
        "--features",
        "features",
        "--n-latents",
        "512",
        "--k",
        "16",
        "--batch-size",
        "64",
        "--epochs",
        "60",
    ]


def workers_of(parent: int) -> list[int]:
    """Return the process ids of the ranks that a torchrun has started."""
    try:
        return [child.pid for child in psutil.Process(parent).children() if "sparc" in " ".join(child.cmdline())]
    except psutil.Error:
        return []


def speed(batch_size: int, latents: int) -> None:
    """Compare samples per second of one process and of two, each with one thread."""
    print("| processes | ms per step | samples per second | times one |\n| --- | ---: | ---: | ---: |")
    base = None
    for name, size, shards in (("one", 1, 1), ("two, samples split", 2, 1), ("two, latents split", 2, 2)):
        words = ["two" if size > 1 else "one-alone", str(batch_size), str(latents), str(shards)]
        if size == 1:
            variables = {**os.environ, "OMP_NUM_THREADS": "1"}
            line = subprocess.run([sys.executable, __file__, *words], env=variables, stdout=-1, text=True, check=True)
            found = json.loads(line.stdout.splitlines()[-1])
        else:
            ranks = [started(rank, size, "127.0.0.1", words, []) for rank in range(size)]
            found = json.loads(ranks[0].communicate()[0].splitlines()[-1])
            ranks[1].communicate()
        rate = batch_size / found["seconds"]
        base = base or rate
        print(f"| {name} | {1000 * found['seconds']:.0f} | {rate:.0f} | {rate / base:.2f} |", flush=True)


def main() -> None:
    """Do what the command line asks for."""
    if sys.argv[1:2] == ["one"]:
        mesh, shape, batch_size = CASES[sys.argv[2]]
        print(json.dumps(steps(shape, batch_size, mesh.shards, int(sys.argv[4]), sys.argv[3])))
        return
    if sys.argv[1:2] in (["two"], ["one-alone"]):
        batch_size, latents, shards = map(int, sys.argv[2:5])
        shape = SpaceConfig(streams=dict.fromkeys("abc", 768), n_latents=latents, k=64)
        print(json.dumps(steps(shape, batch_size, shards, 5)))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("bytes", "cut", "kills", "speed"))
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20.0, help="a process is killed within this time of its start")
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--latents", type=int, default=8192)
    given = parser.parse_args()
    if given.what == "bytes":
        bytes_on_a_link()
    elif given.what == "cut":
        cut()
    elif given.what == "kills":
        kills(given.times, given.seconds)
    else:
        speed(given.batch_size, given.latents)


if __name__ == "__main__":
    main()
