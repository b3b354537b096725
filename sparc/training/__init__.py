"""Training of a shared latent space on features in memory or in a store.

    trainer         the loop: steps, metrics, the state to resume from
    measuring       when held-out losses are measured, and how fast a training is
    plots           the curves of a training
    loader          batches of features, in a seeded order
    mixing          batches of features that arrive while training, mixed by a buffer
    views           what the encoders read and what selects: dropout, and guesses of missing streams
    gradients       `core/losses.py` by hand: the loss and its gradients without autograd
    adam            the optimiser and the unit norms of `core/step.py` by hand
    bf16_selection  Global TopK by a product in bfloat16, with the result of the one in float32
    distributed     several processes: their groups, and how they agree, wait and fail
    reduction       what those with the same latents sum: gradients and counters
    sharding        a space whose latents are split, with the TopK of `merging`, and `sharded_state`, its checkpoints
    cost_model      bytes, memory and time of a step of several processes

Shapes are those of `sparc.core`.
"""
