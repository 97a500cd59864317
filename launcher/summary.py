"""The end of a command: the table of a run, and a training length that was measured once."""

from __future__ import annotations

import textwrap

from launcher import config
from launcher.core import files
from launcher.core.runs import RunDir
from launcher.drive import StageView
from launcher.output import Output
from launcher.schema import RunConfig


class LengthRecorder:
    """Writes the step count that `train.minutes` was turned into to run.yaml, once."""

    def __init__(self, run: RunDir, run_config: RunConfig) -> None:
        self._run = run
        self._config = run_config
        self._recorded = run_config.train is None or run_config.train.minutes is None

    def __call__(self, views: list[StageView]) -> None:
        """Called with every look at the run."""
        if self._recorded:
            return
        event = self._run.ledger.read("train.length")
        if event is None:
            return
        train = self._config.train
        assert train is not None
        measured = train.model_copy(update={"steps": event["steps"]})
        resolved = self._config.model_copy(update={"train": measured})
        files.write_text(self._run.config, config.to_yaml(resolved))
        self._recorded = True


def show(output: Output, run: RunDir) -> None:
    """Print the summary table of a run, or of a sweep, and where its report lies."""
    from launcher.report import load, sweep, tables

    if sweep.is_sweep(run.root):
        swept = sweep.load(run)
        table, document, page = sweep.table(swept), sweep.document(swept), run.report
    else:
        report = load(run)
        table, document = tables.summary(report), tables.document(report)
        page = run.report / "index.html"
    output.table(table.title, table.columns, table.rows)
    output.text()
    for sentence in table.sentences:
        output.text(textwrap.fill(sentence, 78, initial_indent="  ", subsequent_indent="  "))
    output.say(f"\nreport: {page}")
    output.result(document)
