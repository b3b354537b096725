"""Ablations: every combination of a grid of options, trained with several seeds in parallel and compared in one table.

grid      values by option -> cells, one per combination
study     the verb `ablate`: check, extract, train, compare
pool      worker processes, as many as memory and cores allow
worker    one worker process
folder    the directory of an ablation
metrics   the numbers compared
results   their means and spreads over seeds
plots     one plot per axis
"""

from sparc.ablation.study import ablate

__all__ = ["ablate"]
