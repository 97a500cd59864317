"""The baseline of :mod:`benchmarks.rlds_statistics`, run in TensorFlow's own environment.

``features FOLDER`` writes the description that TFDS needs; ``decode FOLDER`` is the nested
loop of openpi's runbook; ``skip FOLDER`` leaves pictures undecoded and takes whole batches.
The last two print the statistics as JSON. Written for that environment: it imports nothing
of ours.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds


def write_features(folder):
    """`features.json` of the published copies."""
    f = tfds.features

    def picture():
        return f.Image(shape=(256, 256, 3), dtype=np.uint8, encoding_format="jpeg")

    def numbers(width):
        return f.Tensor(shape=(width,), dtype=np.float32)

    observation = {"image": picture(), "wrist_image": picture(), "state": numbers(8)}
    observation["joint_state"] = numbers(7)
    step = {"observation": observation, "action": numbers(7), "language_instruction": f.Text()}
    step |= {name: f.Scalar(np.float32) for name in ("reward", "discount")}
    step |= {name: f.Scalar(np.bool_) for name in ("is_first", "is_last", "is_terminal")}
    metadata = {"file_path": f.Text()}
    f.FeaturesDict({"steps": f.Dataset(step), "episode_metadata": metadata}).save_config(folder)


def rows_decoded(folder):
    """Every step through the nested loop, its pictures decoded on the way."""
    dataset = tfds.builder_from_directory(folder).as_dataset(split="train", shuffle_files=False)
    actions, states = [], []
    for episode in dataset:
        for step in episode["steps"]:
            actions.append(step["action"].numpy())
            states.append(step["observation"]["state"].numpy())
    return np.stack(actions), np.stack(states)


def rows_skipped(folder):
    """The same numbers with pictures left alone, in batches of 4,096 steps."""
    skip = {name: tfds.decode.SkipDecoding() for name in ("image", "wrist_image")}
    dataset = tfds.builder_from_directory(folder).as_dataset(
        split="train", shuffle_files=False, decoders={"steps": {"observation": skip}}
    )
    actions, states = [], []
    for episode in dataset:
        chosen = episode["steps"].map(lambda step: (step["action"], step["observation"]["state"]))
        for action, state in chosen.batch(4096):
            actions.append(action.numpy())
            states.append(state.numpy())
    return np.concatenate(actions), np.concatenate(states)


def statistics(rows):
    """The numbers of `dataset_statistics.json`, summed in float64."""
    values = rows.astype(np.float64)
    low, high = np.quantile(values, [0.01, 0.99], axis=0)
    found = {"mean": values.mean(0), "std": values.std(0), "min": values.min(0)}
    found |= {"max": values.max(0), "q01": low, "q99": high}
    return {name: numbers.tolist() for name, numbers in found.items()}


def main(way, folder):
    """Do one of the three."""
    if way == "features":
        write_features(folder)
        return
    action, state = {"decode": rows_decoded, "skip": rows_skipped}[way](folder)
    print(json.dumps({"action": statistics(action), "proprio": statistics(state)}))
    sys.stderr.write(Path("/proc/self/status").read_text())


if __name__ == "__main__":
    main(*sys.argv[1:])
