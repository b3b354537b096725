"""Features and spaces of other tools brought in; spaces of ours in the formats of other libraries."""

from sparc.interchange.feature_files import open_source
from sparc.interchange.import_features import SPLITS, Imported, ImportedSamples, import_features
from sparc.interchange.saelens import write_saelens

FORMATS = {"saelens": write_saelens}
"""By name, what writes one stream of a space into a new folder."""

__all__ = ["FORMATS", "SPLITS", "Imported", "ImportedSamples", "import_features", "open_source", "write_saelens"]
