"""One side of `benchmarks.sampler`, in a process of its own: CPU seconds of one chunk.

``python -m benchmarks.sampler_side ours|baseline fp32|bf16 CHUNK.safetensors``
samples with the published 170M sizes, random weights, one sample, 32 language
tokens and one thread, stores the chunk and prints the better of two times.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from safetensors.torch import save_file
from torch import Tensor

from rdt.model.presets import PRESETS
from rdt.model.rdt import Rdt
from tests.rdt import literal, small_rdt

CONFIG = PRESETS["170m"]
LANGUAGE = 32
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def given(dtype: torch.dtype) -> tuple[Rdt, small_rdt.Inputs]:
    """Network and inputs, the same for both sides."""
    network = small_rdt.network(CONFIG).to(dtype)
    return network, small_rdt.inputs(CONFIG, rows=1, language=LANGUAGE).to(dtype)


def baseline(network: Rdt, inputs: small_rdt.Inputs) -> Tensor:
    """A chunk as the reference computes it: keys at every step, norms in single operations."""
    there = literal.Inputs(
        inputs.lang, inputs.lang_valid, inputs.img, None, inputs.state, inputs.mask, inputs.freq
    )
    how = (CONFIG.sampling_steps, CONFIG.prediction_type)
    return literal.sample(network.state_dict(), CONFIG.num_heads, there, inputs.noise, *how)


SIDES: dict[str, Callable[[Rdt, small_rdt.Inputs], Tensor]] = {
    "ours": small_rdt.sample,
    "baseline": baseline,
}


def gemm_rate(dtype: torch.dtype) -> float:
    """FLOP a second of the largest matrix product of the network, the best of three."""
    h = CONFIG.hidden_size
    x, weight = torch.randn(CONFIG.img_cond_len, h).to(dtype), torch.randn(2 * h, h).to(dtype)
    best = min(seconds(lambda: torch.nn.functional.linear(x, weight)) for _ in range(3))
    return 2 * CONFIG.img_cond_len * h * 2 * h / best


def seconds(call: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    began = time.process_time()
    call()
    return time.process_time() - began


@torch.inference_mode()
def main() -> None:
    """Sample twice: the first time may also touch memory for the first time."""
    side, dtype, path = sys.argv[1:]
    torch.set_num_threads(1)
    rate = gemm_rate(DTYPES[dtype])
    network, inputs = given(DTYPES[dtype])
    chunks: list[Tensor] = []
    times = [seconds(lambda: chunks.append(SIDES[side](network, inputs))) for _ in range(2)]
    save_file({"chunk": chunks[-1]}, path)
    print(min(times), rate)


if __name__ == "__main__":
    main()
