"""Write a tiny model and a dataset for the checks:  python tests/protocol/make_inputs.py FOLDER"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from facts import write_dataset
from tiny_model import build_tiny_model

folder = Path(sys.argv[1])
write_dataset(folder / "data.jsonl")
build_tiny_model(folder / "model")
