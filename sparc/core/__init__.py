"""The engine: one latent space over any number of streams. torch and nothing else.

Read `space` first, then `losses`; `selection` and `sparse` are the two ideas they stand on.

Shapes, here and in the suffixes of names: B samples in a batch, L latents, K kept latents, D width of one stream,
T widths of all streams side by side, S streams.
"""
