"""The engine: one latent space over any number of streams. torch and nothing else.

Read `space` first, then `losses`: that is the paper. `selection` and `sparse` are the two ideas they stand on; `fast`
is the training step by hand.

Shapes, here and in the suffixes of names: B samples in a batch, L latents, K kept latents, D width of one stream,
T widths of all streams side by side, S streams, G streams that share an index set.
"""
