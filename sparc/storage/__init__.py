"""Files of sparc: the feature store, runs, and trained spaces.

Read in this order: `manifest` (what a stream's features are), `store` (the features themselves), `run` (the files of a
run), `provenance` (where a run comes from), `space_config` (the shape of a space), `checkpoint` (a space with its
weights, here or on the Hugging Face Hub), `card` (its model card). Only `store` and `checkpoint` import torch.
Shapes are written in words: (rows, width) is a shard, whose rows several samples may share; (samples, width) has one
row per sample.
"""
