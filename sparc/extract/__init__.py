"""The verb `extract`: a dataset through frozen backbones into the feature store.

`plan` says what there is to do, `extract` has a worker process do it, `stream` is one backbone over one split.
"""

from sparc.extract.plan import Job, directories, plan
from sparc.extract.supervise import Progress, extract

__all__ = ["Job", "Progress", "directories", "extract", "plan"]
