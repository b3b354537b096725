"""The guess of the other streams from one stream alone, by kernel ridge regression.

What one stream tells of another is no linear function of its features. A kernel compares a sample with M landmarks,
which are training samples:

    k(x, z) = exp( -g |x - z|^2 )                  z_1 ... z_M: landmarks; g: the precision
    u       = sum_j k(x_s, z_j) c_j                c_j: R weights of a landmark
    x^_t    = m_t + F_t^T u                        F, m: of the completion

Linear completion computes u as a linear function of x_s; all else is the same. The weights are those of Nystroem's
approximation (Williams and Seeger, 2000). With K of samples and landmarks, and U the true coordinates of the samples,
c = (K^T K + r K_MM)^-1 K^T U.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class KernelGuess(nn.Module):
    """Coordinates of what one stream tells of all founding streams, from a kernel on landmarks."""

    landmarks: Tensor
    """(M, D), normalised features of training samples."""
    weights: Tensor
    """(M, R)."""

    def __init__(self, landmarks_MD: Tensor, weights_MR: Tensor, precision: float) -> None:
        """Take landmarks, weights and g."""
        super().__init__()
        self.precision = precision
        self.register_buffer("landmarks", landmarks_MD, persistent=False)
        self.register_buffer("weights", weights_MR, persistent=False)

    def coordinates(self, x_BD: Tensor) -> Tensor:
        """Return u (B, R) of normalised features (B, D)."""
        return similarities(x_BD, self.landmarks, self.precision) @ self.weights


def similarities(x_BD: Tensor, landmarks_MD: Tensor, precision: float) -> Tensor:
    """Return k(x, z) of every sample and landmark, (B, M)."""
    squares_BM = x_BD.square().sum(dim=1, keepdim=True) + landmarks_MD.square().sum(dim=1)
    return torch.exp((2 * x_BD @ landmarks_MD.T - squares_BM).clamp(max=0) * precision)
