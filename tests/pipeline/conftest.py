"""The helpers of tests/models serve these tests too."""

import sys
from pathlib import Path

MODELS = Path(__file__).parents[1] / "models"
sys.path[:0] = [str(MODELS), str(MODELS / "text")]
