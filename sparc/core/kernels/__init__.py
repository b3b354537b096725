"""The training step by hand: what `losses` and autograd define, at a fraction of their memory.

`gradients` makes loss and gradients without a graph, `adam` applies them block by block, and `backend` chooses compiled
kernels for the sums over kept entries where a compiler is installed. Nothing here is needed to use a space.
"""
