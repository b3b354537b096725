"""What a space says of itself on the hub, and what is uploaded: to a server here that the hub's own client talks to."""

import base64
import json
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from huggingface_hub import ModelCard

import sparc
from sparc.config import SpaceConfig, TrainingConfig
from sparc.core.completion import Completion
from sparc.errors import CorruptFile, MissingData
from sparc.evaluation import HeldOut, evaluate
from sparc.storage.card import model_card
from sparc.storage.checkpoint import SharedLatentSpace
from sparc.storage.run import Run
from sparc.system.files import write_json
from tests.runs import provenance

WIDTHS = {"a": 12, "b": 7}


def features():
    torch.manual_seed(0)
    return {name: torch.randn(20, width) for name, width in WIDTHS.items()}


@pytest.fixture
def run(tmp_path):
    """A run as training and evaluation leave it, of a space that has not learned anything."""
    run = Run.create(tmp_path / "run")
    space = SharedLatentSpace(SpaceConfig(streams=WIDTHS, n_latents=32, k=4), seed=1).eval()
    space.save_pretrained(run.path, training=TrainingConfig(epochs=3))
    made_by = {"backbone": "timm", "params": {"model": "test_vit", "pool": None}, "weights": "hub:timm/test_vit"}
    dataset = {"name": "hf", "alias": "hf", "params": {"caption": "text", "train": str(tmp_path / "secret.tar")}}
    run.write_provenance(
        provenance(
            command=["sparc", "train", "--data-root", str(tmp_path)],
            versions={"sparc-sae": "0.1.0"},
            samples=1234,
            streams={"a": made_by, "b": {**made_by, "backbone": "words", "params": {}}},
            options={"dataset": dataset, "data-root": str(tmp_path), "n-latents": 32, "k": 4, "epochs": 3},
        )
    )
    report = evaluate(space, HeldOut(features(), [str(n) for n in range(20)])).report.to_json()
    write_json(run.evaluation, {"dataset": "hf", "split": "test", "random_weights": [], "report": report})
    return run


def card(directory, repo_id):
    return str(model_card(directory, repo_id))


def test_a_card_says_what_the_run_says_and_no_path_of_this_machine(run, tmp_path):
    text = card(run.path, "lab/space")
    assert "| `a` | 12 | `timm[model=test_vit]` | `hub:timm/test_vit` |" in text
    assert "- data: `hf[caption=text]`, 1234 samples" in text
    assert "- epochs: 3" in text
    assert "(8, 4) each" in text
    report = json.loads(run.evaluation.read_text())["report"]
    across = [report[way][measure]["a"]["b"] for way in ("joint", "solo") for measure in ("nmse", "r2")]
    assert f"| `a` → `b` | {' | '.join(f'{number:.3f}' for number in across)} |" in text
    found = {(pair["query"], pair["target"]): pair for pair in report["retrieval"]}["b", "a"]
    ranks = " | ".join(f"{found[kind]['r1']:.3f}" for kind in ("latents", "cross", "chance"))
    assert f"| `b` → `a` | {ranks} |" in text
    assert ranks.endswith(" | 0.050")
    assert str(tmp_path) not in text
    assert "random weights" not in text


def test_a_card_shows_alignment_with_its_nulls_where_it_was_measured(run):
    content = json.loads(run.evaluation.read_text())
    kinds = {"joint": 0.5, "joint_null": 0.4, "solo": 0.3, "solo_null": None}
    content["report"]["jaccard"] = [{"depth": 2, **{kind: {"all": value} for kind, value in kinds.items()}}]
    write_json(run.evaluation, content)
    assert "| 2 | 0.500 | 0.400 | 0.300 | – |" in card(run.path, "lab/space")


def test_the_hubs_own_parser_reads_the_metadata(run):
    found = ModelCard(card(run.path, "lab/space"))
    assert found.data.library_name == "sparc"
    assert found.data.license is None
    assert {"sparse-autoencoder", "interpretability", "arxiv:2507.06265"} <= set(found.data.tags)
    assert found.text.strip().startswith("# lab/space")


@pytest.mark.parametrize("widths", [WIDTHS, {'one "quoted" | stream': 5}])
def test_the_code_in_a_card_runs_from_the_cache_that_the_hub_fills(widths, tmp_path, monkeypatch):
    """The layout that the hub's client keeps: refs name a commit, snapshots hold its files, the card among them."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    snapshot = tmp_path / "models--lab--space" / "snapshots" / "c0ffee"
    SharedLatentSpace(SpaceConfig(streams=widths, n_latents=32, k=4)).save_pretrained(snapshot)
    (tmp_path / "models--lab--space" / "refs").mkdir()
    (tmp_path / "models--lab--space" / "refs" / "main").write_text("c0ffee")
    text = card(snapshot, "lab/space")
    (snapshot / "README.md").write_text(text)
    assert "Held-out" not in text
    names = {}
    for code in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        exec(code, names)
    assert names["codes"].indices.shape == (8, 4)
    assert names["y"].shape == (8, list(widths.values())[-1])


def test_a_dry_run_says_so_and_what_cannot_be_read_is_an_error(run, tmp_path):
    run.write_provenance(run.provenance().model_copy(update={"random_weights": ("a",)}))
    assert "**a: random weights" in card(run.path, "lab/space")
    write_json(run.evaluation, {"dataset": "hf"})
    with pytest.raises(CorruptFile, match="are not of this version's format: KeyError 'report'"):
        card(run.path, "lab/space")
    with pytest.raises(MissingData, match="the configuration of a space is missing"):
        card(tmp_path, "lab/space")


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's protocol that making a repository and uploading small files takes."""

    def do_HEAD(self):
        """Whether a file is there, and at which commit."""
        there = self.path.rpartition("/")[2] in self.server.files
        said = {"ETag": '"1"', "X-Repo-Commit": "c0ffee"} if there else {"X-Error-Code": "EntryNotFound"}
        self.answer(200 if there else 404, {}, **said)

    def do_POST(self):
        """Make the repository; say how files come; take them."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or self.chunks()
        address = f"http://{self.headers['Host']}"
        if self.path == "/api/repos/create":
            self.answer(200, {"url": f"{address}/lab/{json.loads(body)['name']}"})
        elif self.path == "/api/validate-yaml":
            self.answer(200, {})
        elif "/preupload/" in self.path:
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            self.answer(200, {"files": files})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer(200, {"commitUrl": f"{address}/lab/space/commit/c0ffee", "commitOid": "c0ffee"})

    def chunks(self):
        """A body that comes in pieces, each after its length."""
        body = b""
        while length := int(self.rfile.readline(), 16):
            body += self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def answer(self, status, content, **headers):
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *arguments):
        """Nothing."""


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub on this machine, with nothing on it: what is uploaded lies in `files`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files = {}
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_pushing_a_run_uploads_the_space_its_settings_and_its_card_and_no_more(run, hub, tmp_path):
    address = sparc.load(run.path).push_to_hub("space")
    assert address.endswith("/lab/space")
    assert sorted(hub.files) == ["README.md", "config.json", "model.safetensors"]
    assert hub.files["README.md"].decode() == card(run.path, "lab/space")
    for name in ("config.json", "model.safetensors"):
        assert hub.files[name] == (run.path / name).read_bytes()


def test_a_card_that_its_author_wrote_on_stays(run, hub):
    hub.files["README.md"] = b"mine"
    sparc.load(run.path).push_to_hub("lab/space")
    assert hub.files["README.md"] == b"mine"
    assert hub.files["model.safetensors"] == (run.path / "model.safetensors").read_bytes()


def test_weights_that_were_changed_do_not_borrow_the_runs_numbers(run, hub, tmp_path):
    space = sparc.load(run.path)
    with torch.no_grad():
        space.latent_bias += 1
    space.push_to_hub("lab/space")
    text = hub.files["README.md"].decode()
    assert "`a`" in text
    assert "Held-out" not in text
    assert "epochs" not in text
    hub.files.clear()
    guessing = sparc.load(run.path)
    total = sum(guessing.streams.values())
    guessing.completion = Completion(guessing.streams, torch.zeros(total), torch.eye(total), 1.0)
    guessing.push_to_hub("lab/guessing")
    assert "Held-out" not in hub.files["README.md"].decode()
    hub.files.clear()
    shutil.rmtree(run.path)
    space.push_to_hub("lab/space")
    assert "Held-out" not in hub.files["README.md"].decode()


def test_a_push_that_the_hub_refuses_or_that_finds_no_hub_says_what_to_do(run, hub, monkeypatch):
    space = sparc.load(run.path)
    with pytest.raises(sparc.SparcError, match="could not be pushed to 'no such name': ") as refused:
        space.push_to_hub("no such name")
    assert "hf auth login" in refused.value.hint
    hub.shutdown()
    hub.server_close()
    with pytest.raises(sparc.SparcError, match=r"could not be pushed to .lab/space.: .*Connection refused"):
        space.push_to_hub("lab/space")
    assert hub.files == {}
