"""The oracle of planted data: codes by a pursuit that knows the true directions, and directions that know the codes.

scikit-learn's orthogonal matching pursuit takes one sample at a time, and selects negative products too, which no
planted concept has.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from sparc.core.codes import Codes
from sparc.core.kernels import tiles
from sparc.plugins.contracts import Planted

ENTRIES = 2**18
"""Products in memory at a time: 2 MB, which fit in a cache."""
_SMALLEST = 1e-10
"""Smallest squared norm, so that two equal directions are no error."""


def oracle_codes(features: Mapping[str, Tensor], truth: Mapping[str, Planted], k: int) -> tuple[list[str], Codes]:
    """Return the concepts, and the codes over them that the true directions give, with k concepts per sample.

    features: raw, (N, D) for each stream that the oracle sees; it explains all of them at once, by one strength per
    concept.
    """
    concepts = sorted({concept for name in features for concept in truth[name].concepts})
    row = {concept: number for number, concept in enumerate(concepts)}
    blocks = []
    for name in features:
        block_CD = torch.zeros(len(concepts), truth[name].directions.shape[1], dtype=torch.float64)
        block_CD[[row[concept] for concept in truth[name].concepts]] = torch.from_numpy(truth[name].directions).double()
        blocks.append(block_CD)
    x_NT = torch.cat([x_ND.double().cpu() for x_ND in features.values()], dim=1)
    return concepts, pursue(x_NT, torch.cat(blocks, dim=1), k)


def pursue(x_ND: Tensor, atoms_CD: Tensor, k: int) -> Codes:
    """Encode by orthogonal matching pursuit: k times, take the atom with the largest product with what is left over.

    What is left over is orthogonal to all atoms taken so far. Coefficients are those of least squares, and may be
    negative.
    """
    norms_C = atoms_CD.norm(dim=1)
    unit_CD = atoms_CD / norms_C.unsqueeze(1)
    gram_CC = unit_CD @ unit_CD.T
    steps = min(k, *atoms_CD.shape)
    indices, values = [], []
    for rows in tiles(len(x_ND), max(1, ENTRIES // (steps * len(gram_CC)))):
        products_BC = x_ND[rows] @ unit_CD.T
        indices.append(_selected(products_BC, gram_CC, steps))
        values.append(_fitted(products_BC, gram_CC, indices[-1]))
    indices_NK = torch.cat(indices)
    return Codes(indices_NK, torch.cat(values) / norms_C[indices_NK], len(gram_CC))


def _selected(products_BC: Tensor, gram_CC: Tensor, steps: int) -> Tensor:
    """Return the atoms (B, K) in the order in which they are taken.

    Gram and Schmidt make the atoms taken so far orthonormal; `basis` has their products with all atoms.
    """
    left_BC = products_BC.clone()
    basis_BKC = products_BC.new_zeros(len(products_BC), steps, len(gram_CC))
    indices_BK = torch.empty(len(products_BC), steps, dtype=torch.int64)
    for step in range(steps):
        new_B1 = left_BC.argmax(dim=1, keepdim=True)
        before_BKC = basis_BKC[:, :step]
        shared_BK = before_BKC.gather(2, new_B1.unsqueeze(1).expand(-1, step, 1)).squeeze(2)
        own_BC = gram_CC[new_B1.squeeze(1)] - torch.bmm(shared_BK.unsqueeze(1), before_BKC).squeeze(1)
        own_BC /= (1 - shared_BK.square().sum(dim=1, keepdim=True)).clamp(min=_SMALLEST).sqrt()
        left_BC -= left_BC.gather(1, new_B1) * own_BC / own_BC.gather(1, new_B1).clamp(min=_SMALLEST)
        left_BC.scatter_(1, new_B1, -torch.inf)
        indices_BK[:, step : step + 1], basis_BKC[:, step] = new_B1, own_BC
    return indices_BK


def _fitted(products_BC: Tensor, gram_CC: Tensor, indices_BK: Tensor) -> Tensor:
    """Return the least squares coefficients (B, K) of some atoms."""
    among_BKK = gram_CC[indices_BK.unsqueeze(2), indices_BK.unsqueeze(1)]
    among_BKK = among_BKK + _SMALLEST * torch.eye(indices_BK.shape[1], dtype=among_BKK.dtype)
    found_BK: Tensor = torch.linalg.solve(among_BKK, products_BC.gather(1, indices_BK))
    return found_BK


def fitted_directions(features_ND: Tensor, strengths_NC: csr_array) -> NDArray[np.float64]:
    """Return the directions (C, D) that known strengths give by least squares."""
    gram_CC = (strengths_NC.T @ strengths_NC).toarray()
    products_CD = strengths_NC.T @ features_ND.double().cpu().numpy()
    found: NDArray[np.float64] = np.linalg.lstsq(gram_CC, products_CD, rcond=None)[0]
    return found
