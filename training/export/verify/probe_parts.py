# ruff: noqa: RUF001
"""The parts from which the tokenizer probes are built."""

from __future__ import annotations


def _listed(words: str) -> list[str]:
    return words.split()


# First and last letter of a range of each script, in Unicode's order.
SCRIPTS = [
    (0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x17F), (0x180, 0x24F), (0x370, 0x3FF), (0x400, 0x4FF),
    (0x531, 0x556), (0x5D0, 0x5EA), (0x620, 0x64A), (0x710, 0x72F), (0x905, 0x939), (0x985, 0x9B9),
    (0xA05, 0xA39), (0xB85, 0xBB9), (0xC05, 0xC39), (0xD05, 0xD39), (0xE01, 0xE2E), (0xE81, 0xEA3),
    (0xF40, 0xF6C), (0x1000, 0x1021), (0x10A0, 0x10FF), (0x1100, 0x1112), (0x1200, 0x1248),
    (0x13A0, 0x13F5), (0x1780, 0x17B3), (0x1820, 0x1878), (0x1E00, 0x1EFF), (0x3041, 0x3096),
    (0x30A1, 0x30FA), (0x3105, 0x312F), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0xFF21, 0xFF5A),
    (0x10400, 0x1044F), (0x1D400, 0x1D433), (0x20000, 0x20100),
]  # fmt: skip
MARKS = [(0x300, 0x36F), (0x591, 0x5BD), (0x64B, 0x655), (0x93E, 0x94D), (0xE31, 0xE3A), (0x20D0, 0x20DC)]
NUMBERS = "0123456789٠١٢٣४५६๗๘㊀①Ⅷ½¾²³₄〇᠑𝟘𝟙"
SPACES = " \t\u00a0\u2002\u2003\u2009\u200a\u202f\u205f\u3000\u1680\u0085\u2028\u2029\x0b\x0c"
LINES = ["\n", "\r\n", "\r", "\n\n", "\n\n\n", "\n \n", " \n", "\n\t", "\t\n \t"]
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f\u202e\u2066\ufe0f\ufe0e\u034f\u061c\U000e0041"
CONTROLS = [chr(code) for code in (*range(9), *range(0x0E, 0x20), 0x7F, *range(0x80, 0xA0))]
ODD = [
    "\ufffd",
    "\ufffd\ufffd",
    "\uffff",
    "\ue000",
    "\U0010ffff",
    "\x00",
    "Ã©",
    "â€™",
    "<0x41>",
    "<0xFF>",
    "\\xff",
]
EMOJI = _listed("😀 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 😶‍🌫️ 🇩🇪 🇫🇷🇬🇧 ❤️ ❤ 1️⃣ 🧑🏿‍💻 🫠 🦙🦙🦙 ✅ ☃︎ 🪿")
CONTRACTIONS = _listed("'s 't 're 've 'm 'll 'd 'S 'T 'RE 'Ve 'M 'lL 'D ’s 'x")
SYMBOLS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~§¶€£¥©®™°±×÷…–—“”„«»‹›•†‡¿¡、。「」【】（）！？～·∑∞≠≤→⇒■●★♥"
WORDS = _listed("""
    the Hello world HTTP iPhone naïve Straße ÉCOLE Ελλάδα Москва İstanbul ŁÓDŹ fiancée Nguyễn größte señor çok
    ﬁne ǅungla ʰa don I x86_64 camelCase XMLHttp 東京 你好 こんにちは 안녕하세요 שלום مرحبا สวัสดี नमस्ते ქართული
    አማርኛ ខ្មែរ
""")
CODE = [
    "def f(x):\n    return x ** 2\n",
    "for (int i = 0; i < n; ++i) {\n\tsum += a[i];\n}",
    '{"key": [1, 2.5e-3, null]}',
    "SELECT * FROM t WHERE id='42' -- x",
    "https://example.org/a/b?q=%20&r=1#top",
    "C:\\Users\\me\\file.txt",
    "a->b::c",
    "#include <stdio.h>\r\n",
    '<div class="x">&nbsp;</div>',
    "$ grep -rn 'foo' ./src | wc -l",
    "x=1;y=2;;z",
    "//\n///\n",
    "| a | b |\n|---|---|\n",
    "```python\nprint('hi')\n```",
    "\\frac{a}{b} \\\\ $x_i^2$",
    "if(!a&&b||c){}",
    "0xDEADBEEF",
]
LOOKALIKES = _listed("""
    <|im_start|> <|im_end|> <|endoftext|> <|eot_id|> <s> </s> <unk> <pad> [INST] [/INST] <|im_start im_end|>
    <| |> <|IM_END|> <bos> <start_of_turn> <think> </think> <tool_call> <<SYS>> <|user|> <|end|> <|notatoken|>
    [PAD7] <unused3> <0x0A> ▁ ▁▁a Ġ ĠĠb
""")
REPEATED = ["a", "ab", "=", "-", "!", " ", "\n", "\t", "0", "é", "字", "😀", "'"]
