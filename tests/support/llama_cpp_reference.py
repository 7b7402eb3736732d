"""llama.cpp's own converter on a model folder, without its vocabulary: SOURCE FOLDER OUTPUT-PREFIX TYPE…

Run as a program of its own: the converter comes with another version of the gguf package.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}


def main() -> None:
    source, folder, prefix, *types = sys.argv[1:]
    sys.path[:0] = [source, f"{source}/gguf-py"]
    conversion: Any = import_module("conversion")
    gguf: Any = import_module("gguf")
    base: Any = import_module("conversion.base")
    settings = base.ModelBase.load_hparams(Path(folder), False)
    model = conversion.get_model_class(settings["architectures"][0])
    model.set_vocab = lambda self: None
    for name in types:
        model(Path(folder), gguf.LlamaFileType[TYPES[name]], Path(f"{prefix}-{name}.gguf")).write()


if __name__ == "__main__":
    main()
