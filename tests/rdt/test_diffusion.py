"""Noise schedule and solver against recorded trajectories."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from rdt import diffusion
from tests.rdt import golden

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def recorded() -> dict[str, torch.Tensor]:
    return golden.tensors("scheduler")


def test_schedule(recorded: dict[str, torch.Tensor]) -> None:
    assert torch.equal(diffusion.cosine_betas(), recorded["betas"])
    assert golden.distance(diffusion.alphas_cumprod(), recorded["alphas_cumprod"]) <= 1e-7


@pytest.mark.parametrize(("dtype", "out"), [(torch.float32, "out"), (torch.bfloat16, "out_bf16")])
def test_add_noise(recorded: dict[str, torch.Tensor], dtype: torch.dtype, out: str) -> None:
    noisy = diffusion.add_noise(
        diffusion.alphas_cumprod(),
        recorded["add_noise.x0"].to(dtype),
        recorded["add_noise.noise"].to(dtype),
        recorded["add_noise.t"],
    )
    assert noisy.dtype == dtype
    # Not every CPU rounds between product and sum.
    roundings = 1e-7 if dtype == torch.float32 else 2e-3
    assert golden.distance(noisy, recorded[f"add_noise.{out}"]) <= roundings


def says(kind: diffusion.Target, x: torch.Tensor, index: int) -> torch.Tensor:
    """What the recorded "network" says."""
    return torch.tanh(0.7 * x + 0.1 * index) if kind == "sample" else 0.9 * x / (1 + x.abs())


@pytest.mark.parametrize("kind", get_args(diffusion.Target))
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10, 20, 50])
def test_solver(recorded: dict[str, torch.Tensor], steps: int, kind: diffusion.Target) -> None:
    """Every intermediate sample, with the network replaced by the recorded function."""
    solver = diffusion.DpmSolver(diffusion.alphas_cumprod(), steps, kind)
    assert torch.equal(solver.timesteps, recorded[f"n{steps}.timesteps"])
    assert golden.distance(solver.sigmas, recorded[f"n{steps}.sigmas"]) <= 1e-6
    x = recorded[f"n{steps}.x_init"]
    for index in range(steps):
        said = says(kind, x, index)
        expected = recorded[f"{kind}.n{steps}.model_output"][index]
        assert golden.distance(said, expected) <= 5e-6, index
        x = solver.step(index, said, x)
        assert golden.distance(x, recorded[f"{kind}.n{steps}.x"][index]) <= 5e-6, index


def test_sample_asks_at_the_solver_s_timesteps_and_returns_the_last_estimate() -> None:
    asked: list[int] = []

    def denoise(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        asked.append(int(t.item()))
        return torch.full_like(x, float(len(asked)))

    noise = torch.randn(2, 4, 8, generator=golden.seeded())
    out = diffusion.sample(denoise, noise, diffusion.alphas_cumprod(), 5)
    assert asked == [999, 799, 599, 400, 200]
    assert torch.equal(out, torch.full_like(noise, 5.0))
