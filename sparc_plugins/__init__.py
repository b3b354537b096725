"""Ordinary plugins of sparc: each module is declared in pyproject.toml under the entry points that anybody may use."""
