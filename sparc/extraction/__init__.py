"""Extraction: the samples of a dataset become features of frozen backbones, in the feature store.

Read in this order:

- `plan`: a `Job` for every stream and split, and the directory that its features go to.
- `sharing`: processes that meet in the store own its folders one after the other.
- `supervise`: `extract` starts a worker process and turns its events into `Progress`; `probe` only estimates.
- `worker`: that process. It loads the backbones and does all jobs that read the same images or captions together.
- `items`: the distinct images or captions of a dataset; each is computed once.
- `preprocessing`: samples become backbone inputs, in loading processes.
- `loading`: batches come from those processes, through shared memory or a pipe, within a time limit.
- `reading_log`: what each loading process reads now, for the error if it never ends.
- `features`: inputs become features; here a caption or an image goes through the backbones, batch by batch.
- `batch_size`: the number of samples that fits into memory.
- `shards`: features become shard files, and complete shards are never computed again.
- `work`: the shards that one process computes: all, or its share and those of processes that are slow or dead.
- `reading_order`, `feeding`: features that are sent to a training instead of stored.
- `parts`: rows of a shard in work are kept, and a later extraction goes on from them.
- `estimate`: time, disk and memory that an extraction will take, measured on a few samples.

Importing this package imports no torch. Shapes are written in words: (rows, width), one row per distinct item, or
(samples, width), one row per sample of a batch.
"""

from sparc.extraction.plan import SPLITS, WHOLE, Job, JobOptions, Share, directories, imported, plan
from sparc.extraction.supervise import Progress, extract, probe
from sparc.storage.manifest import IMPORTED

__all__ = [
    "IMPORTED",
    "SPLITS",
    "WHOLE",
    "Job",
    "JobOptions",
    "Progress",
    "Share",
    "directories",
    "extract",
    "imported",
    "plan",
    "probe",
]
