"""Time of `import edgeseg` in a new process, beside that of numpy alone.

python benchmarks/import_time.py
"""

from __future__ import annotations

import subprocess
import sys

RUNS = 15


def seconds(module: str) -> float:
    """Fastest import of a module over RUNS processes, without the interpreter's own start."""
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    times = [subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(RUNS)]
    return min(map(float, times))


def main() -> None:
    """Measure and print."""
    whole, numpy = seconds("edgeseg"), seconds("numpy")
    print(f"import edgeseg {whole:.3f} s, of which numpy {numpy:.3f} s")


if __name__ == "__main__":
    main()
