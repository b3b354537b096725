"""The paper, and the completion of missing streams: one latent space shared by any number of streams. Torch alone.

Read in this order:

    space       encoders, decoders, and how features become codes and reconstructions
    codes       the kept latents of a batch
    topk        which latents a sample keeps: Global TopK
    losses      self and cross reconstruction, and AuxK
    dead        counters of latents that are no longer active
    unit_norm   the latents' directions in the decoders, of norm one
    step        one training step, all of the above in ten lines, for reading
    moments     means and covariances of the training features
    completion  guesses of the streams that a sample lacks

`kernels` computes sums over kept entries, on the CPU and on GPUs. `sparc.training` computes the same step by hand.

A table is a matrix with one row per latent: an encoder, (L, D), or the decoders side by side, (L, T). An entry is one
kept latent of one sample.

Shapes, in docstrings and in the suffixes of names:

    B samples of a batch    D width of one stream             S streams
    L latents               T widths of all streams, summed   G streams that share an index set
    K kept latents          Q dead latents                    E entries of a batch, B·K
    N rows of any matrix    C candidates for selection        P pieces of a direction
    M terms of all sums of a table's gradient, E·G                R rank of a completion
"""
