"""kill -9 at random moments: the resumed calibration writes the same bytes and leaves nothing else behind."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

VICTIM = Path(os.environ["RTLYNX_BIN_DIR"]) / "calibrate_toy"
KILLS = 15


def run_to_the_end(output: Path) -> list[str]:
    done = subprocess.run([VICTIM, output], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def kill_after(output: Path, lines: int, delay: float) -> bool:
    """Starts the run, lets it report `lines` times and kills it a moment later; False where it ended before."""
    process = subprocess.Popen([VICTIM, output], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(lines):
        process.stdout.readline()
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.stdout.close()
    return process.wait() == -signal.SIGKILL


def test_killed_runs_resume_to_the_same_bytes(tmp_path: Path) -> None:
    reports = len(run_to_the_end(tmp_path / "whole"))
    wanted = (tmp_path / "whole").read_bytes()
    rng = random.Random(0)
    kills = 0
    for round_number in range(2 * KILLS):
        folder = tmp_path / str(round_number)
        folder.mkdir()
        output = folder / "adapter.safetensors"
        for _ in range(rng.choice((1, 1, 2, 3))):  # also kills of a resumed run
            kills += kill_after(output, rng.randrange(reports), rng.random() * 0.01)
        left = len(run_to_the_end(output))
        assert left <= reports
        assert output.read_bytes() == wanted, f"round {round_number}"
        assert [p.name for p in folder.iterdir()] == [output.name], f"round {round_number}"
        if kills >= KILLS:
            break
    assert kills >= KILLS
