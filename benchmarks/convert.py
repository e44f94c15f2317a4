"""Rows per second and peak memory of `rmg data convert`, beside pandas running the snippet of the guides.

    python benchmarks/convert.py [--rows 20000 200000 2000000] [--data ../shared/data/helpsteer2]

HelpSteer2 rows are repeated with a suffix that makes each prompt unique, written as JSON Lines, and converted
twice in processes of their own: by us (all labels, ids, duplicates found, split by prompt), and by
`convert_to_pointwise` with `pd.DataFrame(...).to_parquet`. pandas holds every row in memory, so it runs under
a limit, and running out of it is reported as that. Results go to benchmarks/results/convert.json.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "convert.json"

OURS = """
from rm_gallery.core.data import DatasetConfig, convert_dataset
config = {"name": "bench", "configs": {"source": "helpsteer2_pointwise", "path": SOURCE},
          "export": {"output_dir": FOLDER, "split_ratio": {"train": 0.8, "test": 0.2}}}
assert convert_dataset(DatasetConfig.model_validate(config)).kept == ROWS
"""

PANDAS = """
import json
import pandas as pd
def convert_to_pointwise(example):
    return {
        "input": [{"role": "user", "content": example["prompt"]}],
        "output": {"content": example["response"], "label": {"helpfulness": int(example["helpfulness"])}},
        "data_source": "helpsteer2",
    }
with open(SOURCE) as lines:
    data = [convert_to_pointwise(json.loads(line)) for line in lines]
pd.DataFrame(data).to_parquet(FOLDER + "/pandas.parquet")
assert len(data) == ROWS
"""


def write_rows(source: Path, target: Path, rows: int) -> None:
    """Repeat the rows of `source` until there are `rows`, each with a prompt of its own."""
    with gzip.open(source, "rt") as lines:
        originals = [json.loads(line) for line in lines]
    # the suffix goes into the encoded prompt: encoding anew would take longer than what is measured
    parts = []
    for row in originals:
        head, tail = json.dumps({**row, "prompt": row["prompt"] + "\0"}, ensure_ascii=False).split("\\u0000")
        parts.append((head, tail))
    with target.open("w") as file:
        for number in range(rows):
            head, tail = parts[number % len(parts)]
            file.write(f"{head} ({number}){tail}\n")


def measure(code: str, source: Path, rows: int, limit_gib: float) -> dict:
    """Run `code` in a process of its own: seconds, peak memory, and whether it ended well."""
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        names = f"SOURCE, FOLDER, ROWS = {str(source)!r}, {folder!r}, {rows}\n"

        def limited() -> None:
            size = int(limit_gib * 2**30)
            resource.setrlimit(resource.RLIMIT_AS, (size, size))

        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", names + code], preexec_fn=limited, stderr=subprocess.PIPE, text=True
        )
        errors = process.stderr.read()
        # wait4 gives the peak of this child alone; RUSAGE_CHILDREN would keep the largest so far
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        failed = os.waitstatus_to_exitcode(status) != 0
        written = sum(file.stat().st_size for file in Path(folder).rglob("*.parquet"))
    result = {"seconds": round(seconds, 2), "peak_mib": round(usage.ru_maxrss / 1024)}
    if failed:
        last = errors.strip().splitlines()[-1][:200] if errors.strip() else "killed"
        out_of_memory = "MemoryError" in errors or "realloc" in errors or "malloc" in errors or not errors
        return {**result, "failed": f"out of memory at {limit_gib:g} GiB" if out_of_memory else last}
    return {**result, "rows_per_second": round(rows / seconds), "written_mib": round(written / 2**20)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 200_000, 2_000_000])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "helpsteer2")
    parser.add_argument("--limit-gib", type=float, default=12.0, help="memory that either may take")
    parser.add_argument("--work", type=Path, help="where to write; needs 2.5 GB a million rows, twice")
    arguments = parser.parse_args()

    results = []
    print(f"{'rows':>10}  {'':8}{'seconds':>9}{'rows/s':>10}{'peak MiB':>10}{'file MiB':>10}")
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
            source = Path(folder) / "rows.jsonl"
            write_rows(arguments.data / "train.jsonl.gz", source, rows)
            entry = {"rows": rows, "source_mib": round(source.stat().st_size / 2**20)}
            for name, code in (("rmg", OURS), ("pandas", PANDAS)):
                entry[name] = found = measure(code, source, rows, arguments.limit_gib)
                outcome = found.get("failed") or (
                    f"{found['rows_per_second']:>10,}{found['peak_mib']:>10,}{found['written_mib']:>10,}"
                )
                print(f"{rows:>10,}  {name:8}{found['seconds']:>9.1f}{outcome}", flush=True)
            results.append(entry)
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "machine": platform.machine()}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": machine, "runs": results}, indent=2) + "\n")
    print(f"wrote {RESULTS}")


if __name__ == "__main__":
    main()
