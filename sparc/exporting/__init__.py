"""The verb `export`: a trained space in the formats of other libraries."""

from __future__ import annotations

from sparc.exporting.saelens import write_saelens

FORMATS = {"saelens": write_saelens}
"""By name, what writes one stream of a space into a new folder."""

__all__ = ["FORMATS", "write_saelens"]
