"""A tiny Qwen3 of random weights, whole enough that llama.cpp runs it: one that makes vectors, and one that orders documents."""

from pathlib import Path

import numpy as np
from gguf import GGUFWriter

from support.tiny_gguf import CONTROL, MERGES, ORDINARY

WIDTH, INNER, HEADS, HEAD_WIDTH, LAYERS, CONTEXT = 64, 96, 4, 16, 2, 2_048
LAST, RANK = 3, 4
JUDGING = "<Query>: {query}\n<Document>: {document}<|im_end|>"


def write(path: Path, pooling: int) -> Path:
    draw = np.random.default_rng(5)
    tokens = [*ORDINARY, *CONTROL]
    writer = GGUFWriter(path, "qwen3")
    writer.add_name("Tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_key_length(HEAD_WIDTH)
    writer.add_value_length(HEAD_WIDTH)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_uint32("qwen3.pooling_type", pooling)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * len(ORDINARY) + [3] * len(CONTROL))
    writer.add_token_merges(MERGES)
    writer.add_eos_token_id(len(ORDINARY))
    writer.add_pad_token_id(len(ORDINARY))
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(True)

    def tensor(name: str, *shape: int) -> None:
        writer.add_tensor(name, (draw.standard_normal(shape) * 0.2).astype(np.float32))

    def ones(name: str, size: int) -> None:
        writer.add_tensor(name, np.ones(size, dtype=np.float32))

    tensor("token_embd.weight", len(tokens), WIDTH)
    ones("output_norm.weight", WIDTH)
    for layer in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            ones(f"blk.{layer}.{name}.weight", WIDTH)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensor(f"blk.{layer}.{name}.weight", WIDTH, WIDTH)
        for name in ("attn_q_norm", "attn_k_norm"):
            ones(f"blk.{layer}.{name}.weight", HEAD_WIDTH)
        for name in ("ffn_gate", "ffn_up"):
            tensor(f"blk.{layer}.{name}.weight", INNER, WIDTH)
        tensor(f"blk.{layer}.ffn_down.weight", WIDTH, INNER)
    if pooling == RANK:
        writer.add_array("qwen3.classifier.output_labels", ["yes", "no"])
        writer.add_string("tokenizer.chat_template.rerank", JUDGING)
        tensor("cls.output.weight", 2, WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
