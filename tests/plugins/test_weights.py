"""Weights from the hub: every name is looked up in the cache, but the network is used only once."""

import time

import pytest

from sparc.errors import WeightsUnavailable
from sparc.plugins.weights import hub_file
from tests.plugins.backbones import hub_cache

NAMES = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin")


@pytest.fixture
def no_network(tmp_path, monkeypatch):
    """A hub at a closed port and an empty cache. Return a list of the waits of its client, which do not happen."""
    waited = []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}"
    )
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


def test_without_a_network_only_the_first_name_is_asked_for_there(no_network):
    with pytest.raises(WeightsUnavailable, match=r"lab/model/model.safetensors \(no connection to the hub\)"):
        hub_file("lab/model", NAMES[:1], backbone="vit")
    once = len(no_network)
    assert once > 1
    with pytest.raises(WeightsUnavailable):
        hub_file("lab/model", NAMES, backbone="vit")
    assert len(no_network) == 2 * once


def test_a_later_name_is_found_in_the_cache_all_the_same(no_network, tmp_path):
    (tmp_path / NAMES[2]).write_bytes(b"weights")
    hub_cache(tmp_path / "hub", "lab/model", tmp_path / NAMES[2])
    assert hub_file("lab/model", NAMES, backbone="vit").read_bytes() == b"weights"
