"""An inverted index of the codes of many samples: which ones are near a code, and how a code compares with theirs.

    results.py    what a search finds
    inverted.py   the index: cosines of a code with all samples, percentiles of activations
    page.py       the answers of a search as one HTML file
    sheet.py      the same as a picture

`sparc.storage.index_file` keeps an index beside the features that it was made of. Shapes, in names: M distinct images
or captions, L latents, E entries, that is activations above 0.
"""
