"""The paper's forward pass and loss, naive and dense, with loops over streams: what the engine must agree with.

Everything is dense [B, L]; gradients are torch's own. Nothing is imported from sparc.
"""

from __future__ import annotations

import torch


def select(scores_BL, k):
    """Mask of the k largest scores of each row; among equals the lowest index, by definition."""
    mask = torch.zeros_like(scores_BL, dtype=torch.bool)
    for row, scores in enumerate(scores_BL.tolist()):
        ranked = sorted(range(len(scores)), key=lambda latent: (-scores[latent], latent))
        mask[row, ranked[:k]] = True
    return mask


def nmse(y, x, rows):
    ratios = [((y[b] - x[b]) ** 2).mean() / (x[b] ** 2).mean() for b in rows if (x[b] ** 2).sum() > 0]
    return torch.stack(ratios).mean() if ratios else torch.zeros((), dtype=y.dtype)


class Oracle:
    """Parameters by stream: W (L, d), c (L,), D (d, L), b (d,)."""

    def __init__(self, W, c, D, b, k, selection):
        self.W, self.c, self.D, self.b, self.k, self.selection = W, c, D, b, k, selection
        self.streams = list(W)

    def parameters(self):
        return [tensor for group in (self.W, self.c, self.D, self.b) for tensor in group.values()]

    def normalize(self, raw):
        x, present = {}, {}
        for s, rows in raw.items():
            present[s] = [bool((row != 0).any()) for row in rows]
            x[s] = torch.stack(
                [row / row.norm() if there else row for row, there in zip(rows, present[s], strict=True)]
            )
        return x, present

    def logits(self, x):
        return {s: (x[s] - self.b[s]) @ self.W[s].T + self.c[s] for s in x}

    def encode(self, x, present):
        """Dense codes z_s (B, L) of the given streams, encoded together."""
        there = {s: torch.tensor(present[s], dtype=x[s].dtype).unsqueeze(1) for s in x}
        h = {s: logits * there[s] for s, logits in self.logits(x).items()}
        if self.selection == "global":
            summed = 0
            for s in self.streams:
                if s in h:
                    summed = summed + h[s]
            mask = dict.fromkeys(h, select(summed.detach(), self.k))
        else:
            mask = {s: select(h[s].detach(), self.k) for s in h}
        return {s: torch.relu(h[s]) * mask[s] * there[s] for s in h}

    def terms(self, raw, weights, dead):
        """Name to (value, weight) of every term of the loss."""
        x, present = self.normalize(raw)
        z = self.encode(x, present)
        h = self.logits(x)
        S = len(self.streams)
        terms = {}
        for s in self.streams:
            for t in self.streams:
                y = z[s] @ self.D[t].T + self.b[t]
                rows = [b for b in range(len(y)) if present[s][b] and present[t][b]]
                if s == t:
                    terms[f"self/{s}"] = (nmse(y, x[t], rows), 1 / S)
                    silent = dead[s].nonzero().flatten().tolist()
                    if weights.aux and silent:
                        kept = select(h[s].detach()[:, silent], min(weights.k_aux, len(silent)))
                        z_aux = torch.zeros_like(h[s])
                        z_aux[:, silent] = torch.relu(h[s][:, silent]) * kept
                        left_over = (x[s] - y).detach()
                        terms[f"aux/{s}"] = (nmse(z_aux @ self.D[s].T, left_over, rows), weights.aux / S)
                elif weights.cross:
                    terms[f"cross/{s}->{t}"] = (nmse(y, x[t], rows), weights.cross / (S * (S - 1)))
        return terms
