"""Every combination of some settings, trained with several seeds side by side, and one table of all of them.

grid      values by option -> cells, one per combination
study     what to train, extracted, trained and compared: the verb `ablate`
pool      worker processes, as many as the machine holds; worker    what one of them does
folder    the directory of an ablation
results   means and spreads over seeds; metrics    the numbers compared; plots    one per axis
"""

from sparc.ablation.study import ablate

__all__ = ["ablate"]
