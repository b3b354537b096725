"""Show what latents mean: the site of a run, and a contact sheet of a few latents.

site.py            writes the site: the page, its data and its thumbnails, as one folder
statements.py      data files: JSON that a page opened from a disk can load, with untrusted texts escaped
shown.py           the samples that are shown, with their codes, labels and words; the names of latents
latents.py         the table of all latents: names, states, rates, overlaps, the map
details.py         one latent: top samples, histograms, neighbours
terms.py           the words and labels that the samples of a latent have more often than others
samples.py         one sample: its codes, and what each latent contributes to each reconstruction
bias.py            which samples carry a label or a word, for the bias check, which runs in the page
overview.py        training curves and measures of the run
heat.py            heat maps of latents over their top images
thumbnails.py      sprites of the images
serving.py         serves a site on this machine alone
page/              the page, which is copied as it is
meanings.py        which latents a contact sheet shows, and the samples that show each
contact_sheet.py   the look of the contact sheet

Names of latents are not decided here: `evaluation.concepts` finds them, and a run stores them. This package is above
`evaluation` and `localization`, since the site shows what they compute.
"""
