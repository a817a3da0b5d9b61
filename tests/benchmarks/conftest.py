"""The kit and its programs lie beside the package: a program of benchmarks/ imports its neighbours by their names."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
