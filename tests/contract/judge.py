"""What a call should answer, by `reference`, and in what an answer differs from that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .case import Case
from .reference import BEYOND, DEFINITIONS

Answer = torch.Tensor | str  # a result, or the error in words


def array(x: torch.Tensor) -> np.ndarray:
    """The tensor in the widest NumPy dtype of its kind."""
    if x.dtype is torch.bool:
        return x.numpy()
    if x.dtype.is_complex:
        return x.to(torch.complex128).resolve_conj().numpy()
    return x.to(torch.float64 if x.dtype.is_floating_point else torch.int64).numpy()


def expected(name: str, case: Case, seed: int = 0) -> list[torch.Tensor]:
    """Every rank's result, by the definition in NumPy."""
    return defined(name, case.inputs(seed), case)


def defined(name: str, inputs: Sequence[torch.Tensor], case: Case) -> list[torch.Tensor]:
    """Every rank's result for these inputs and the case's parameters."""
    results = DEFINITIONS[name]([array(x) for x in inputs], case.params)
    return [torch.from_numpy(within(np.array(result), inputs[0].dtype)).to(inputs[0].dtype) for result in results]


def within(result: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """Cut integers that stand for "beyond everything" down to the dtype's limits."""
    if result.dtype.kind != "i":
        return result
    limits = torch.iinfo(dtype)
    return np.where(result >= BEYOND, limits.max, np.where(result <= -BEYOND, limits.min, result))


def wrong(answer: Answer, want: torch.Tensor) -> str:
    """Say in what an answer differs, or nothing; equality is exact, dtype and shape included."""
    if not isinstance(answer, torch.Tensor):
        return answer
    if answer.dtype != want.dtype or answer.shape != want.shape:
        return f"{answer.dtype} {tuple(answer.shape)} instead of {want.dtype} {tuple(want.shape)}"
    return "" if torch.equal(answer, want) else f"{answer.tolist()} instead of {want.tolist()}"


def complaints(cases: Sequence[Case], answers: Sequence[Sequence[Answer]], name: str) -> list[str]:
    """List every case whose answers, by rank and then by case, are not what the definition says."""
    found = []
    for index, case in enumerate(cases):
        for rank, want in enumerate(expected(name, case)):
            said = wrong(answers[rank][index], want)
            if said:
                found.append(f"{name}, {case.label}, rank {rank} of {case.world}: {said}")
    return found
