"""Shared helpers are imported by their bare names: those of this folder, and those of tests/models elsewhere too."""

import sys
from pathlib import Path

TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS), str(TESTS / "models"), str(TESTS / "models" / "text")]
