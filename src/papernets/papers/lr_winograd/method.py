"""Low-Rank Winograd Transformation for 3D Convolutional Neural Networks.

Ziran Qin, Mingbao Lin, Weiyao Lin; arXiv 2301.11180, 2023. No code of the authors is known.

Winograd's algorithm saves products: a tile of 4×4×4 inputs gives 2×2×2 outputs with 64 products a pair of channels, where the
direct sum takes 216. Weights can be trained in the transformed domain, but there a kernel of 27 numbers has become 64 (or 216),
and zeros without order save no time. The paper writes the tensor of transformed weights as a product of two small ones, and
removes whole columns of it: positions p, the same in all kernels. Each column that goes takes a matrix product with it.

Symbols: t = m + 2, K = G ⊗ G ⊗ G (t³, 27), W (Co·Ci, 27) spatial kernels, M (Co·Ci, t³) transformed ones, M₀ = W Kᵀ,
M = P Q with P (Co·Ci, s) and Q (s, t³), ρ the share of columns that are removed, U_p (Co, Ci) column p of M, V_p (Ci, tiles).

Only the abstract was read. What stands here beyond it is our reading, not the paper's:

Differs: M = P Q is one way to decouple a tensor into two smaller ones; ``mode="delta"``, M = M₀ + P Q, is another.
Differs: the importance of a column is its norm ‖P q_p‖. The abstract says that it is measured, not how.
Differs: 3×3 convolutions of images are transformed as well; the paper is about volumes, and so is everything measured here.
Differs: the share rises cubically, the mask only grows, and both rank and share have defaults of our own.
"""

import functools

import torch

from papernets import check

# ---------------------------------------------------------------------------------------------------------------------
# Transforms, factors and importance
# ---------------------------------------------------------------------------------------------------------------------

#: How M is trained: as a product, as a fixed M₀ and a product, directly, or as the spatial kernels.
MODES = ("factor", "delta", "vanilla", "spatial")
#: How a column is scored: its norm, the norm of its factors in Q, or the sum of first-order changes of the loss.
SCORES = ("column", "factor", "taylor")
_MATRICES = {
    2: ([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
        [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
        [[1, 1, 1, 0], [0, 1, -1, -1]]),
    4: ([[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0],
         [0, 4, 0, -5, 0, 1]],
        [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6],
         [0, 0, 1]],
        [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]),
}


def matrices(m: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Bᵀ (t, t), G (t, 3) and Aᵀ (m, t) of F(m, 3) in double precision. ``ValueError`` unless ``m`` is 2 or 4."""
    check.one_of("m, the side of a tile of outputs,", m, _MATRICES)
    return tuple(torch.tensor(matrix, dtype=torch.float64) for matrix in _MATRICES[m])


@functools.cache
def _cubes(m: int, axes: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return tuple(functools.reduce(torch.kron, [one] * axes).contiguous() for one in matrices(m))


def cubes(m: int = 2, axes: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The three matrices for three axes: Bᵀ⊗Bᵀ⊗Bᵀ (t³, t³), K = G⊗G⊗G (t³, 27) and Aᵀ⊗Aᵀ⊗Aᵀ (m³, t³); or for two."""
    check.one_of("the number of axes", axes, (2, 3))
    return tuple(one.clone() for one in _cubes(m, axes))


def expand(W: torch.Tensor, m: int = 2) -> torch.Tensor:
    """M₀ (Co·Ci, t³) = W Kᵀ: the kernels ``W`` (Co, Ci, 3, 3, 3) in the transformed domain; (Co·Ci, t²) of 3×3 kernels."""
    axes = W.dim() - 2
    if axes not in (2, 3) or set(W.shape[2:]) != {3}:
        raise ValueError(f"the weight has shape {tuple(W.shape)}; it is (Co, Ci, 3, 3, 3), or (Co, Ci, 3, 3)")
    return (W.reshape(-1, 3**axes).double() @ cubes(m, axes)[1].T.to(W.device)).to(W.dtype)


def check_rank(M: torch.Tensor, s: int) -> None:
    """``ValueError`` if a product of rank ``s`` is more than the matrix ``M`` (kernels, positions) can hold."""
    kernels, positions = M.shape
    check.whole(f"the rank for {kernels} kernels and {positions} positions", s, 1, min(kernels, positions))


def factors(M: torch.Tensor, s: int, *, noise: float = 1e-2,
            generator: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """P (kernels, s) and Q (s, t³) with P Q nearest to ``M``: the singular values are shared equally between the two.

    Transformed spatial kernels have rank 27, of two axes 9. Beyond it, P gets columns of small noise and Q rows of zeros: the
    product stays as it is, and the gradient of Q is not zero. ``ValueError`` if ``M`` cannot have rank ``s``.
    """
    check_rank(M, s)
    U, S, Vh = torch.linalg.svd(M.detach().double(), full_matrices=False)
    r = min(s, 27 if M.shape[1] in (4**3, 6**3) else 9)
    root = S[:r].sqrt()
    P, Q = U[:, :r] * root, root[:, None] * Vh[:r]
    if s > r:
        scale = noise * float(P.std())
        more = scale * torch.randn(len(P), s - r, generator=generator, dtype=torch.float64).to(P.device)
        P, Q = torch.cat([P, more], 1), torch.cat([Q, Q.new_zeros(s - r, Q.shape[1])])
    return P.to(M.dtype), Q.to(M.dtype)


def columns_gone(positions: int, removed: float) -> int:
    """How many of ``positions`` columns go if the share ``removed`` is to go; one always stays."""
    check.share("removed", removed)
    return min(positions - 1, int(positions * removed + 1e-9))


def removed_at(epoch: float, epochs: float, removed: float) -> float:
    """The share that is removed after ``epoch`` of ``epochs`` of a cubic rise from 0 to ``removed``."""
    check.share("removed", removed)
    return removed * (1 - (1 - min(max(epoch / epochs, 0.0), 1.0)) ** 3)


def stored_numbers(Co: int, Ci: int, s: int, columns: int) -> tuple[int, int]:
    """Numbers on disk of a trained layer with ``columns`` left: multiplied out, and as P and what is left of Q."""
    return columns * Co * Ci, s * (Co * Ci + columns)
