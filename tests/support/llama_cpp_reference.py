"""llama.cpp's own converter on model folders, without their vocabularies: SOURCE TYPE…

Run as a program of its own, since the converter comes with another version of the gguf package. It reads
lines of FOLDER, a tab and OUTPUT-PREFIX, and says for each "done" or what went wrong.
"""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}

PUBLISHED = {"Gemma4UnifiedForCausalLM": "Gemma4UnifiedForConditionalGeneration"}
"""The converter's name of a language model that is not published alone."""


def main() -> None:
    source, *types = sys.argv[1:]
    sys.path[:0] = [source, f"{source}/gguf-py"]
    for line in sys.stdin:
        folder, prefix = line.rstrip("\n").split("\t")
        try:
            convert(folder, prefix, types)
        except Exception:  # what the converter raises
            print(repr(traceback.format_exc()), flush=True)
        else:
            print("done", flush=True)


def convert(folder: str, prefix: str, types: list[str]) -> None:
    conversion: Any = import_module("conversion")
    gguf: Any = import_module("gguf")
    base: Any = import_module("conversion.base")
    settings = base.ModelBase.load_hparams(Path(folder), False)
    name = settings["architectures"][0]
    model = conversion.get_model_class(PUBLISHED.get(name, name))
    model.no_mtp = True  # layers that predict further tokens, which transformers does not load
    for name in types:
        made = model(Path(folder), gguf.LlamaFileType[TYPES[name]], Path(f"{prefix}-{name}.gguf"))
        getattr(made, "impl", made).set_vocab = lambda: None
        made.write()


if __name__ == "__main__":
    main()
