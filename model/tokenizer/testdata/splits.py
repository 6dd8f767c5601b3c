"""Writes splits.json: how the models' own word rules cut texts, by Hugging Face's tokenizers.

Usage: python3 splits.py > splits.json   (needs: pip install tokenizers==0.23.3)

The expressions are those of each model's tokenizer.json, unchanged, so that they check the rewritten ones of rules.go.
"""

import json
import random

from tokenizers import Regex
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence, Split

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UP, LOW = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O = r"[^\r\n\p{L}\p{N}]?UP*LOW+SUF|[^\r\n\p{L}\p{N}]?UP+LOW*SUF|NUM| ?[^\s\p{L}\p{N}]+NL|\s*[\r\n]+|\s+(?!\S)|\s+"
END = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"


def o200k(up, low, suf, num, nl):
    return O.replace("UP", up).replace("LOW", low).replace("SUF", suf).replace("NUM", num).replace("NL", nl)


HAN = r"&&[^\p{Han}]]"
DS3 = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
CJK = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
CJK2 = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"

RULES = {
    "gpt-2": [GPT2],
    "smollm": [r"\p{N}", GPT2],
    "llama-bpe": [CL % r"\p{N}{1,3}"],
    "qwen2": [CL % r"\p{N}"],
    "qwen35": [r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"],
    "tekken": [o200k(UP, LOW, "", r"\p{N}", r"[\r\n/]*")],
    "gpt-4o": [o200k(UP, LOW, END, r"\p{N}{1,3}", r"[\r\n/]*")],
    "kimi-k2": [r"[\p{Han}]+|" + o200k(UP[:-1] + HAN, LOW[:-1] + HAN, END, r"\p{N}{1,3}", r"[\r\n]*")],
    "tiny_aya": [r"\d{1,3}(?=(?:\d{3})*\b)", o200k(UP, LOW, END, r"\p{N}{1,3}", r"[\r\n/]*")],
    "bailingmoe": [r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"],
    "seed-coder": [r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}" + "\r\n" + r"]+|\s*[" + "\r\n" + r"]+|\s+(?!\S)|\s+"],
    "exaone-moe": [r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"],
    "deepseek-v3": [r"\p{N}{1,3}", CJK, DS3],
    "deepseek-coder": ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK2, r"\p{N}"],
    "falcon": [r"[\p{P}\$\+<=>\^~\|`]+", GPT2, r"[0-9][0-9][0-9]"],
    "default": [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"],
    "bloom": [" ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"],
    "minicpm5": [r"\p{N}{1,3}", CL % r"\p{N}+"],
}

TEXTS = [
    "Hello, world! It's a fine day; we'LL see what they'Ve done. I'm sure he'd agree.",
    "  leading, trailing  \n\n  \n x\t\ty \r\n\r\n  z   ",
    "1 12 123 1234 12345 123456 1234567 3.14159 1,000,000 0x1F ½ ²³ Ⅷ ١٢٣٤ 12ab ab12cd345",
    "camelCase HTTPServer XMLHttpRequest ÉcoleÉcole straßeSTRASSE ǅungla",
    "你好，世界！今天天气很好。日本語のテキスト、カタカナ。한국어 텍스트입니다. mixed中文andEnglish",
    "नमस्ते दुनिया สวัสดีชาวโลก مرحبا بالعالم שלום עולם Привет, мир",
    "e\u0301a\u0300 q\u0323\u0307 Z\u0351\u036b\u0343 \u0301mark n\u0303o",
    "😀😃 👨‍👩‍👧‍👦 🇩🇪 ❤️ ☂️!!! ... --- === <<< >>> ~~~ ``` ^^^ || $$ ++",
    "def f(x):\n    return x**2  # comment\n\n\nclass A:\n\tpass\n",
    "https://example.com/path?q=1&r=2#frag user@example.org /usr/bin/env C:\\dir",
    "a\u00a0b\u2003c\u2028d\u2029e\u3000f\u200bg\u0085h\u202fi\ufeffj",
    "'s 'S 'sS ''s x's' don't DON'T 'tis 're've'll'd",
    "//path/\n/\n//\r\n!/\n ?/\n", "", " ", "\n", "a", "   a", "a   ", "\n \n", "!?\n\n", "٣ ٤٥ x٦٧٨٩",
]
random.seed(7)
ALPHABET = list(" \n\r\t'sStTlLdDaAbÉéßǅʰªア中文한ก่\u0301\u0308123½٣.,!?-/_$+<=`~|😀\u00a0\u3000\u200b") + ["  ", "'s", "'LL", "123", "你好"]
TEXTS += ["".join(random.choice(ALPHABET) for _ in range(random.randint(2, 24))) for _ in range(150)]

out = {}
for pre, steps in RULES.items():
    tokenizer = Sequence([Split(Regex(s), "isolated") for s in steps])
    out[pre] = [[piece for piece, _ in tokenizer.pre_tokenize_str(text)] for text in TEXTS]

# Two rules as their tokenizer.json has them, to see that they are what this file says above.
assert out["smollm"] == [
    [t[a:b] for _, (a, b) in Sequence([Digits(True), ByteLevel(add_prefix_space=False)]).pre_tokenize_str(t)] for t in TEXTS
]
assert out["gpt-2"] == [[t[a:b] for _, (a, b) in ByteLevel(add_prefix_space=False).pre_tokenize_str(t)] for t in TEXTS]
print(json.dumps(out, ensure_ascii=True, indent=0, separators=(",", ":")).replace(",\n", ",").replace("[\n", "[").replace("\n]", "]"))
