"""submitit's Slurm executor, with what a launcher must do differently. One home for quirks.

=============================================  ====================================================
submitit 1.5                                   here
=============================================  ====================================================
no timeout around sbatch (#1659)               stopped after a minute; the caller looks it up
a pickle a task, moved after sbatch returned   one list of tasks, written before sbatch
pickles stay when sbatch refuses (#1624)       the part's folder is removed
arrays are not cut (#1624)                     :func:`launcher.arrays.cut`
0.2 s pause between submissions                none: a stage is few submissions
``--wckey=submitit``, ``%256``                 neither
srun without ``--cpus-per-task``               with it (Slurm 22.05 and later need it)
limits of ten minutes count as time-outs       never (:mod:`jobs.slurm_task`, #1656)
state from sacct, kept up to 600 s (#1759)     :class:`launcher.submit.queue.Queue`
NODE_FAIL is final though Slurm requeues       final when squeue no longer lists it
a cancelled job without accounting never ends  as above
=============================================  ====================================================
"""

from __future__ import annotations

import shutil
from typing import Any

from submitit.slurm.slurm import SlurmExecutor, SlurmJob

from launcher.core import files
from launcher.core.runs import RunDir
from launcher.submit.clients import SBATCH_TIMEOUT_S, Clients, Reply
from launcher.submit.script import Request, render


class NotSentError(Exception):
    """sbatch did not say that it accepted the job; ``reply`` tells whether it refused."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.err)
        self.reply = reply


class PartExecutor(SlurmExecutor):
    """Sends one part of a stage with one sbatch."""

    def __init__(self, request: Request, clients: Clients) -> None:
        super().__init__(request.folder, python=request.python)
        self._request = request
        self._clients = clients

    def send(self, run: RunDir, stage: str, attempt: int, indices: tuple[int, ...]) -> str:
        """Write tasks and script, call sbatch; returns the job id.

        Raises NotSentError: when Slurm refused, the part leaves no files behind.
        """
        listed = {"run_dir": str(run.root), "stage": stage, "attempt": attempt}
        files.write_json(self.folder / "tasks.json", {**listed, "indices": list(indices)})
        job: SlurmJob[Any] = self._submit_command("")
        return str(job.job_id)

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        return render(self._request)

    def _submit_command(self, command: str) -> Any:
        script = self.folder / "submission.sh"
        files.write_text(script, self._make_submission_file_text(command, ""))
        reply = self._clients.run(self._make_submission_command(script), SBATCH_TIMEOUT_S)
        if reply.code != 0:
            if not reply.silent:
                shutil.rmtree(self.folder)
            raise NotSentError(reply)
        job_id = self._get_job_id_from_submission_command(reply.out)
        return SlurmJob(folder=self.folder, job_id=job_id, tasks=[0])
