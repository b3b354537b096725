"""The look of all plots: colours, fonts, marks, axes, legends, and how figures are saved (figures.py).

Each room draws its own plots with these: `evaluation.plots`, `ablation.plots`, `localization.picture`.
"""
