"""The verb `extract`: a dataset through frozen backbones into the feature store.

`plan` says what there is to do, `extract` has a worker process do it. In that process `items` finds what is distinct,
`forward` computes it batch by batch, and `shards` writes it.
"""

from sparc.extraction.plan import IMPORTED, How, Job, directories, imported, plan
from sparc.extraction.supervise import Progress, extract, probe

__all__ = ["IMPORTED", "How", "Job", "Progress", "directories", "extract", "imported", "plan", "probe"]
