"""Writes the tokenizer of a GGUF model, without its tensors, as a compressed GGUF file.

Usage: python3 vocabulary.py MODEL.gguf OUT.gguf.gz   (needs: pip install gguf)
"""

import gzip
import os
import sys
import tempfile

from gguf import GGUFReader, GGUFValueType, GGUFWriter

reader = GGUFReader(sys.argv[1])
fields = reader.fields
arch = fields["general.architecture"].contents()
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "vocabulary.gguf")
    writer = GGUFWriter(path, arch)
    for name, field in fields.items():
        if not name.startswith("tokenizer.") and name != "general.name":
            continue
        sub = field.types[1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], sub)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with open(path, "rb") as f, open(sys.argv[2], "wb") as out:
        out.write(gzip.compress(f.read(), 9, mtime=0))
