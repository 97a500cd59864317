"""duckdb's side of benchmarks/aggregation.py: ``python aggregation_side.py FOLDER``."""

import json
import sys
from pathlib import Path

import duckdb  # type: ignore[import-not-found]

TYPES = {
    **dict.fromkeys(("policy", "suite"), "VARCHAR"), "task_id": "INTEGER", "task_name": "VARCHAR",
    **dict.fromkeys(("init_state", "trial"), "INTEGER"), "status": "VARCHAR",
    **dict.fromkeys(("steps", "queries", "renders"), "INTEGER"),
    **dict.fromkeys(("wall_s", "policy_s"), "DOUBLE"),
    **dict.fromkeys(("protocol", "checkpoint"), "VARCHAR"),
    **dict.fromkeys(("actions_sha256", "fixtures_sha256", "state_sha256"), "VARCHAR"),
    **dict.fromkeys(("attempt", "shard"), "INTEGER"),
    **dict.fromkeys(("host", "error"), "VARCHAR"),
}  # fmt: skip
UNUSED = (
    *("queries", "renders", "actions_sha256", "state_sha256"),
    *("attempt", "shard", "host", "error", "task_name"),
)
EPISODES = """
create temp table episodes as
select policy, suite, task_id, init_state, trial,
  arg_min(struct_pack(status, steps, wall_s, policy_s, protocol, checkpoint, fixtures_sha256),
          struct_pack(bad := status not in ('success', 'fail'), filename)) r
from {source} where policy is not null group by all
"""
ROWS = """
select policy, task_id, count(*) filter (r.status in ('success', 'fail')),
  count(*) filter (r.status = 'success'),
  count(*) filter (r.status not in ('success', 'fail')), {planned} - count(*),
  avg(r.steps) filter (r.status in ('success', 'fail')),
  avg(r.steps) filter (r.status = 'success'),
  avg(r.wall_s) filter (r.status in ('success', 'fail')),
  avg(r.policy_s) filter (r.status in ('success', 'fail')), coalesce(max(r.checkpoint), '')
from episodes group by all order by policy desc, task_id
"""
ODD = """
select count(*) from (select suite, task_id, init_state, trial from episodes group by all
  having count(distinct r.fixtures_sha256) > 1)
"""


def source(folder: str) -> str:
    """The files as a table: JSON lines or CSV, only what is needed where that is possible."""
    is_csv = any(Path(folder).glob("*.csv"))
    columns = {n: kind for n, kind in TYPES.items() if is_csv or n not in UNUSED}
    if is_csv:
        options = "header=true, auto_detect=false, delim=',', quote='\"'"
        return f"read_csv('{folder}/*.csv', {options}, {shared(columns)})"
    return f"read_json('{folder}/*.jsonl', format='newline_delimited', {shared(columns)})"


def shared(columns: dict) -> str:
    return f"columns={columns}, ignore_errors=true, filename=true"


def main() -> None:
    """Print the same answers as ours, as JSON."""
    connection = duckdb.connect()
    connection.execute("set threads=1")
    connection.execute(EPISODES.format(source=source(sys.argv[1])))
    rows = connection.execute(ROWS.format(planned=50_000)).fetchall()
    protocols = connection.execute("select distinct r.protocol from episodes").fetchall()
    (odd,) = connection.execute(ODD).fetchone()
    hwm = Path("/proc/self/status").read_text()
    print(
        json.dumps(
            {
                "rows": rows,
                "protocols": sorted(name for (name,) in protocols),
                "odd": odd,
                "peak_mb": int(hwm.split("VmHWM:")[1].split()[0]) / 1024,
            }
        )
    )


if __name__ == "__main__":
    main()
