"""Show what latents mean: the held-out samples that activate a latent most, in every stream.

meanings.py        which latents are worth showing, and the samples that show each
contact_sheet.py   the look of the page that `sparc explore` writes: layout, colours, fonts

Names of latents are not decided here: `evaluation.concepts` finds them, and a run stores them.
"""
