"""``python -m jobs.slurm_task FOLDER``: what srun starts on each node of a part.

The launcher wrote one list of tasks before sbatch; this takes the task of its
place in the array and hands it to submitit as if submitit had pickled it. So a
job that went in although its launcher died finds its task, and a thousand tasks
cost the launcher one file.
"""

from __future__ import annotations

import sys
from pathlib import Path

from submitit.core import submission, utils
from submitit.slurm.slurm import SlurmJobEnvironment

from jobs.node import NodeTask, run_task
from launcher.core import files

ENDLESS_MIN = 10 * 365 * 24 * 60
"""submitit takes a warning in the last ten minutes of a limit for a time-out that counts
(submitit#1656); jobs.requeue decides that, so for submitit no limit is near."""


def main(folder: Path) -> None:
    """Run the task of this place. Raises what the task raises; Slurm sees the exit status."""
    listed = files.read_json(folder / "tasks.json")
    place = SlurmJobEnvironment()
    index = listed["indices"][int(place.array_task_id or 0)]
    paths = utils.JobPaths(folder, job_id=place.job_id, task_id=place.global_rank)
    # Left by a kill in the middle of submitit's dump, it would make every later dump fail.
    paths.result_pickle.with_suffix(".pkl.save_tmp").unlink(missing_ok=True)
    task = NodeTask(listed["run_dir"], listed["stage"], index, listed["attempt"])
    delayed = utils.DelayedSubmission(run_task, task)
    delayed.set_timeout(ENDLESS_MIN, max_num_timeout=0)
    # submitit reads its task from a pickle: our own, written and read by this process.
    with files.whole_file(paths.submitted_pickle) as temporary:
        delayed.dump(temporary)
    submission.process_job(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
