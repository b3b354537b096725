"""Fixtures of the plugins' tests."""

import pytest


@pytest.fixture
def no_hub(tmp_path, monkeypatch):
    """An empty hub cache, and no network."""
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return cache
