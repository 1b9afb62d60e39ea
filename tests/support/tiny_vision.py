"""A tiny Qwen2-VL or Qwen3-VL: a text model and its projector with random weights, so that llama.cpp's real picture path runs in a second.

The weights mean nothing; everything around them is real: tokens, patches, positions, batching, counting. Same seed, same bytes.
"""

from pathlib import Path

import gguf
import msgspec
import numpy as np

from support.tiny_gguf import CONTROL, USER_DEFINED, letters

# Every piece of a merge is a token itself, so that a reader by merges and a reader by ranks agree.
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "l d", "Ġwor ld", "u s", "e r", "us er"]
ORDINARY = letters() + [merge.replace(" ", "") for merge in MERGES]
VISION_CONTROL = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
TOKENS = [*ORDINARY, *CONTROL, *VISION_CONTROL, *USER_DEFINED]
# How Qwen2.5-VL and Qwen3-VL write their turns, as far as pictures go.
TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.content is string %}{{- message.content }}{%- else %}{%- for item in message.content %}"
    "{%- if item.type == 'image' %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- elif item.type == 'video' %}{{- '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{%- elif 'text' in item %}{{- item.text }}{%- endif %}{%- endfor %}{%- endif %}"
    "{{- '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
WIDTH, HEADS, BLOCKS, FEED = 64, 4, 2, 128
VISION_WIDTH, VISION_HEADS, VISION_BLOCKS, VISION_FEED = 64, 2, 2, 128
IMAGE_SIDE = 560
MERGED = 4 * VISION_WIDTH  # 2 by 2 patches become one token


class Family(msgspec.Struct, frozen=True):
    """patch: side in pixels. is_deep: Qwen3-VL also passes on what the projector saw half way."""

    architecture: str
    projector: str
    patch: int
    is_deep: bool = False


QWEN2 = Family("qwen2vl", "qwen2vl_merger", 14)
QWEN3 = Family("qwen3vl", "qwen3vl_merger", 16, is_deep=True)


class TinyVision(msgspec.Struct, frozen=True):
    """The two files of a vision model."""

    model: Path
    projector: Path


def build(folder: Path, family: Family = QWEN2, seed: int = 7) -> TinyVision:
    """Write both files into `folder`."""
    random = np.random.default_rng(seed)
    return TinyVision(_text_model(folder / "tiny-vl.gguf", family, random), _projector(folder / "mmproj-tiny-vl.gguf", family, random))


def _text_model(path: Path, family: Family, random: np.random.Generator) -> Path:
    writer = gguf.GGUFWriter(path, family.architecture)
    writer.add_name("Tiny VL")
    writer.add_context_length(32_768)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(BLOCKS)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS // 2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_rope_dimension_sections([2, 3, 3, 0])
    if family.is_deep:
        writer.add_num_deepstack_layers(1)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([1] * len(ORDINARY) + [3] * (len(CONTROL) + len(VISION_CONTROL)) + [4] * len(USER_DEFINED))
    writer.add_token_merges(MERGES)
    writer.add_eos_token_id(TOKENS.index("<|im_end|>"))
    writer.add_bos_token_id(TOKENS.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    pen = _Pen(writer, random)
    # Large embeddings: the texts of random weights must differ visibly with what was read.
    pen.matrix("token_embd.weight", len(TOKENS), WIDTH, 1.0)
    pen.ones("output_norm.weight", WIDTH)
    pen.matrix("output.weight", len(TOKENS), WIDTH, 0.5)
    for block in range(BLOCKS):
        at = f"blk.{block}."
        pen.ones(at + "attn_norm.weight", WIDTH)
        pen.ones(at + "ffn_norm.weight", WIDTH)
        for name, size in (("attn_q", WIDTH), ("attn_k", WIDTH // 2), ("attn_v", WIDTH // 2)):
            pen.matrix(f"{at}{name}.weight", size, WIDTH)
            if not family.is_deep:
                pen.vector(f"{at}{name}.bias", size)
        if family.is_deep:
            pen.ones(at + "attn_q_norm.weight", WIDTH // HEADS)
            pen.ones(at + "attn_k_norm.weight", WIDTH // HEADS)
        pen.matrix(at + "attn_output.weight", WIDTH, WIDTH)
        pen.matrix(at + "ffn_gate.weight", FEED, WIDTH)
        pen.matrix(at + "ffn_up.weight", FEED, WIDTH)
        pen.matrix(at + "ffn_down.weight", WIDTH, FEED)
    return _write(writer, path)


def _projector(path: Path, family: Family, random: np.random.Generator) -> Path:
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", family.projector)
    writer.add_bool("clip.use_silu", False)
    writer.add_bool("clip.use_gelu", True)
    writer.add_uint32("clip.vision.image_size", IMAGE_SIDE)
    writer.add_uint32("clip.vision.patch_size", family.patch)
    writer.add_uint32("clip.vision.embedding_length", VISION_WIDTH)
    writer.add_uint32("clip.vision.feed_forward_length", VISION_FEED)
    writer.add_uint32("clip.vision.projection_dim", WIDTH)
    writer.add_uint32("clip.vision.block_count", VISION_BLOCKS)
    writer.add_uint32("clip.vision.attention.head_count", VISION_HEADS)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    writer.add_array("clip.vision.image_mean", [0.48145466, 0.4578275, 0.40821073])
    writer.add_array("clip.vision.image_std", [0.26862954, 0.26130258, 0.27577711])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    if family.is_deep:
        writer.add_uint32("clip.vision.spatial_merge_size", 2)
        writer.add_array("clip.vision.is_deepstack_layers", [True, *[False] * (VISION_BLOCKS - 1)])
    pen = _Pen(writer, random)
    for name in ("v.patch_embd.weight", "v.patch_embd.weight.1"):
        writer.add_tensor(name, (0.1 * random.standard_normal((VISION_WIDTH, 3, family.patch, family.patch))).astype(np.float32))
    for block in range(VISION_BLOCKS):
        at = f"v.blk.{block}."
        for name in ("ln1", "ln2"):
            pen.ones(f"{at}{name}.weight", VISION_WIDTH)
            pen.vector(f"{at}{name}.bias", VISION_WIDTH)
        if family.is_deep:
            pen.linear(at + "attn_qkv", 3 * VISION_WIDTH, VISION_WIDTH)
        else:
            for name in ("attn_q", "attn_k", "attn_v"):
                pen.linear(at + name, VISION_WIDTH, VISION_WIDTH)
        pen.linear(at + "attn_out", VISION_WIDTH, VISION_WIDTH)
        pen.linear(at + "ffn_up", VISION_FEED, VISION_WIDTH)
        pen.linear(at + "ffn_down", VISION_WIDTH, VISION_FEED)
    pen.ones("v.post_ln.weight", VISION_WIDTH)
    pen.vector("v.post_ln.bias", VISION_WIDTH)
    pen.linear("mm.0", MERGED, MERGED)
    pen.linear("mm.2", WIDTH, MERGED)
    if family.is_deep:
        _deepstack(pen, family)
    return _write(writer, path)


def _deepstack(pen: "_Pen", family: Family) -> None:
    pen.vector("v.patch_embd.bias", VISION_WIDTH)
    pen.matrix("v.position_embd.weight", (IMAGE_SIDE // family.patch) ** 2, VISION_WIDTH)
    pen.ones("v.deepstack.0.norm.weight", MERGED)
    pen.vector("v.deepstack.0.norm.bias", MERGED)
    pen.linear("v.deepstack.0.fc1", MERGED, MERGED)
    pen.linear("v.deepstack.0.fc2", WIDTH, MERGED)


class _Pen:
    """Adds random tensors. sizes: rows (outputs) first, as numpy and GGUF's writer have them."""

    def __init__(self, writer: gguf.GGUFWriter, random: np.random.Generator) -> None:
        self._writer = writer
        self._random = random

    def matrix(self, name: str, rows: int, columns: int, scale: float = 0.15) -> None:
        self._writer.add_tensor(name, (scale * self._random.standard_normal((rows, columns))).astype(np.float32))

    def vector(self, name: str, size: int) -> None:
        self._writer.add_tensor(name, (0.05 * self._random.standard_normal(size)).astype(np.float32))

    def ones(self, name: str, size: int) -> None:
        self._writer.add_tensor(name, np.ones(size, dtype=np.float32))

    def linear(self, name: str, rows: int, columns: int) -> None:
        self.matrix(name + ".weight", rows, columns)
        self.vector(name + ".bias", rows)


def _write(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
