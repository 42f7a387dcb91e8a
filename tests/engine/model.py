"""Makes a language model for llama.cpp that costs what it costs to compute, and says nothing.

    python model.py FILE

Its weights are random numbers from a fixed seed, so each run writes the same bytes: an architecture of
Llama's with 1.8 million weights, and a vocabulary of single bytes, so that a prompt has as many tokens as
it has bytes. The format is GGUF 3 (github.com/ggml-org/ggml, docs/gguf.md).
"""

import random
import struct
import sys

LAYERS, WIDTH, INNER, HEADS, CONTEXT = 2, 256, 768, 4, 16_384
SEED = 20

# GGUF's numbers of value types, and ggml's of tensor types.
U32, F32, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9
TENSOR_F32, TENSOR_Q8_0 = 0, 8
ALIGNMENT = 32


def byte_names():
    """What GPT-2's vocabulary calls the bytes 0 to 255: printable ones by themselves."""
    names, spare = [], 256
    for byte in range(256):
        if 33 <= byte <= 126 or 161 <= byte <= 172 or 174 <= byte <= 255:
            names.append(chr(byte))
        else:
            names.append(chr(spare))
            spare += 1
    return names


def text(value):
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def strings(values):
    return ARRAY, struct.pack("<IQ", STRING, len(values)) + b"".join(map(text, values))


def number(value):
    return U32, struct.pack("<I", value)


def quantized(source, columns, rows, said=lambda row: True):
    """A matrix in blocks of a 16-bit scale and 32 signed bytes; rows that are not `said` are 0."""
    scale = struct.pack("<e", columns**-0.5 / 74)  # The deviation of a uniform signed byte is 74.
    blocks = columns // 32
    out = bytearray()
    for row in range(rows):
        if not said(row):
            out += bytes(blocks * 34)
            continue
        values = source.randbytes(columns)
        for block in range(blocks):
            out += scale + values[32 * block : 32 * (block + 1)]
    return (columns, rows), TENSOR_Q8_0, bytes(out)


def ones(length):
    return (length,), TENSOR_F32, struct.pack("<f", 1.0) * length


def main(path):
    names = byte_names()
    # The merge is there because llama.cpp wants a list of them; its token makes two bytes one.
    tokens = [*names, names[0] * 2, "<|end|>"]
    end = len(tokens) - 1
    said = {ord(letter) for letter in "abcdefghijklmnopqrstuvwxyz "}
    facts = {
        "general.architecture": (STRING, text("llama")),
        "general.name": (STRING, text("random")),
        "llama.vocab_size": number(len(tokens)),
        "llama.context_length": number(CONTEXT),
        "llama.embedding_length": number(WIDTH),
        "llama.block_count": number(LAYERS),
        "llama.feed_forward_length": number(INNER),
        "llama.attention.head_count": number(HEADS),
        "llama.attention.head_count_kv": number(HEADS),
        "llama.rope.dimension_count": number(WIDTH // HEADS),
        "llama.attention.layer_norm_rms_epsilon": (F32, struct.pack("<f", 1e-5)),
        "tokenizer.ggml.model": (STRING, text("gpt2")),
        "tokenizer.ggml.pre": (STRING, text("gpt-2")),
        "tokenizer.ggml.tokens": strings(tokens),
        "tokenizer.ggml.merges": strings([f"{names[0]} {names[0]}"]),
        "tokenizer.ggml.bos_token_id": number(end),
        "tokenizer.ggml.eos_token_id": number(end),
        "tokenizer.ggml.add_bos_token": (BOOL, b"\0"),
    }
    source = random.Random(SEED)
    tensors = {
        "token_embd.weight": quantized(source, WIDTH, len(tokens)),
        "output_norm.weight": ones(WIDTH),
        # All logits but those of letters are 0, so the most likely token is a letter: each token is a
        # whole character, and an answer is as long as its request allows.
        "output.weight": quantized(source, WIDTH, len(tokens), said.__contains__),
    }
    for layer in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            tensors[f"blk.{layer}.{name}.weight"] = ones(WIDTH)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensors[f"blk.{layer}.{name}.weight"] = quantized(source, WIDTH, WIDTH)
        for name in ("ffn_gate", "ffn_up"):
            tensors[f"blk.{layer}.{name}.weight"] = quantized(source, WIDTH, INNER)
        tensors[f"blk.{layer}.ffn_down.weight"] = quantized(source, INNER, WIDTH)

    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(facts))
    for key, (kind, value) in facts.items():
        head += text(key) + struct.pack("<I", kind) + value
    data = b""
    for name, (shape, kind, values) in tensors.items():
        head += text(name) + struct.pack("<I", len(shape))
        head += struct.pack(f"<{len(shape)}QIQ", *shape, kind, len(data))
        data += values + bytes(-len(values) % ALIGNMENT)
    with open(path, "wb") as file:
        file.write(head + bytes(-len(head) % ALIGNMENT) + data)


if __name__ == "__main__":
    main(sys.argv[1])
