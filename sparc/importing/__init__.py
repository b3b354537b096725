"""The verb `import`: features that were computed elsewhere, into a store. Rows are joined by id, never by position.

`sources` reads files of features, `write` aligns and writes them.
"""

from sparc.importing.sources import open_source
from sparc.importing.write import SPLITS, Imported, ImportedSamples, import_features

__all__ = ["SPLITS", "Imported", "ImportedSamples", "import_features", "open_source"]
