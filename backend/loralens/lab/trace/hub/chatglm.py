"""ChatGLM 2 and 3 (sequence first) and GLM-4-9B before it was converted (samples first): one model type, two modelling codes.

Read in DracoUnion/chatglm3-6b-int4-lora 61985f2, modeling_chatglm.py (THUDM/chatglm3-6b's with LoRA added), and, for
GLM-4-9B, in a public copy of THUDM/glm-4-9b-chat's with other dtypes. Their scripted rotary function runs operator by operator.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_outputs import CausalLMOutputWithPast

from loralens.lab.trace.hub.parts import RemoteModel, own_config


class HubChatGLMNorm(nn.Module):
    """Only the variance is taken of a float32 copy; the product is float32 until the end."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.hidden_size))
        self.eps = config.layernorm_epsilon

    def forward(self, hidden: Tensor) -> Tensor:
        dtype = hidden.dtype
        variance = hidden.to(torch.float32).pow(2).mean(-1, keepdim=True)
        hidden = hidden * torch.rsqrt(variance + self.eps)
        return (self.weight * hidden).to(dtype)


class HubChatGLMRotary(nn.Module):
    """Cosine and sine of every position that the model knows, made in each forward pass."""

    inv_freq: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer(
            "inv_freq", 1.0 / (10000 ** (torch.arange(0, width, 2).to(torch.get_default_dtype()) / width))
        )
        self.width = width

    def forward(self, length: int) -> Tensor:
        device, dtype = self.inv_freq.device, self.inv_freq.dtype
        theta = 1.0 / (10000 ** (torch.arange(0, self.width, 2, dtype=torch.float, device=device) / self.width))
        places = torch.arange(length, dtype=torch.float, device=device)
        angles = torch.outer(places, theta).float()
        table = torch.stack([torch.cos(angles), torch.sin(angles)], dim=-1)
        return table.to(dtype)


def turned(x: Tensor, table: Tensor, first: bool) -> Tensor:
    """Pairs of neighbours, turned. `first`: the sequence is the first dimension, else the third."""
    if first:
        length, _, heads = x.shape[:3]
    else:
        batch, heads, length = x.shape[:3]
    width = table.shape[-2] * 2
    x, passed = x[..., :width], x[..., width:]
    if first:
        table = table[:length]
        pairs = x.reshape(length, -1, heads, width // 2, 2)
        table = table.view(length, -1, 1, width // 2, 2)
    else:
        table = table[:, :length]
        pairs = x.reshape(batch, heads, length, width // 2, 2)
        table = table.view(-1, 1, length, width // 2, 2)
    out = torch.stack(
        [
            pairs[..., 0] * table[..., 0] - pairs[..., 1] * table[..., 1],
            pairs[..., 1] * table[..., 0] + pairs[..., 0] * table[..., 1],
        ],
        -1,
    )
    out = out.flatten(3)
    return torch.cat((out, passed), dim=-1)


class HubChatGLMAttention(nn.Module):
    """Few heads for keys and values, in one matrix with the query's."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.heads, self.width = config.num_attention_heads, config.kv_channels
        self.keys = config.multi_query_group_num if config.multi_query_attention else self.heads
        self.first = config.sequence_first
        bias = config.add_bias_linear
        outputs = (self.heads + 2 * self.keys) * self.width
        self.query_key_value = nn.Linear(config.hidden_size, outputs, bias=bias or config.add_qkv_bias)
        self.dense = nn.Linear(self.heads * self.width, config.hidden_size, bias=bias)

    def spread(self, x: Tensor) -> Tensor:
        """For all heads."""
        groups = self.heads // self.keys
        if self.first:
            x = x.unsqueeze(-2)
            x = x.expand(-1, -1, -1, groups, -1)
            return x.contiguous().view((*x.size()[:2], self.heads, self.width))
        x = x.unsqueeze(2)
        x = x.expand(-1, -1, groups, -1, -1)
        return x.contiguous().view((*x.size()[:1], self.heads, *x.size()[3:]))

    def core(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """The kernel."""
        if self.first:
            q, k, v = [x.permute(1, 2, 0, 3) for x in (q, k, v)]
        if mask is None:
            out = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            mask = ~mask
            out = functional.scaled_dot_product_attention(q, k, v, mask)
        out = out.permute(2, 0, 1, 3) if self.first else out.transpose(1, 2).contiguous()
        return out.reshape(*out.size()[:-2], self.heads * self.width)

    def forward(self, hidden: Tensor, mask: Tensor | None, table: Tensor) -> Tensor:
        mixed = self.query_key_value(hidden)
        q, k, v = mixed.split([n * self.width for n in (self.heads, self.keys, self.keys)], dim=-1)
        q = q.view(*q.size()[:-1], self.heads, self.width)
        k = k.view(*k.size()[:-1], self.keys, self.width)
        v = v.view(*v.size()[:-1], self.keys, self.width)
        if not self.first:
            q, k, v = [x.transpose(1, 2) for x in [q, k, v]]
        q = turned(q, table, self.first)
        k = turned(k, table, self.first)
        k = self.spread(k)
        v = self.spread(v)
        out = self.core(q, k, v, mask)
        return self.dense(out)


class HubChatGLMMLP(nn.Module):
    """Gate and up in one matrix."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        bias = config.add_bias_linear
        self.dense_h_to_4h = nn.Linear(config.hidden_size, config.ffn_hidden_size * 2, bias=bias)
        self.dense_4h_to_h = nn.Linear(config.ffn_hidden_size, config.hidden_size, bias=bias)

    @staticmethod
    def activation(x: Any) -> Tensor:
        x = torch.chunk(x, 2, dim=-1)
        return functional.silu(x[0]) * x[1]

    def forward(self, hidden: Tensor) -> Tensor:
        inner = self.dense_h_to_4h(hidden)
        inner = self.activation(inner)
        return self.dense_4h_to_h(inner)


class HubChatGLMBlock(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.input_layernorm = HubChatGLMNorm(config)
        self.self_attention = HubChatGLMAttention(config)
        self.post_attention_layernorm = HubChatGLMNorm(config)
        self.mlp = HubChatGLMMLP(config)
        self.dropout = config.hidden_dropout

    def forward(self, hidden: Tensor, mask: Tensor | None, table: Tensor) -> Tensor:
        normed = self.input_layernorm(hidden)
        attended = self.self_attention(normed, mask, table)
        residual = hidden
        inner = functional.dropout(attended, p=self.dropout, training=self.training)
        inner = residual + inner
        normed = self.post_attention_layernorm(inner)
        fed = self.mlp(normed)
        residual = inner
        out = functional.dropout(fed, p=self.dropout, training=self.training)
        out = residual + out
        return out


class Encoder(nn.Module):
    """The stack."""

    _gradient_checkpointing_func: Any  # transformers sets it

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(HubChatGLMBlock(config) for _ in range(config.num_layers))
        self.final_layernorm = HubChatGLMNorm(config)
        self.gradient_checkpointing = False

    def forward(self, hidden: Tensor, mask: Tensor | None, table: Tensor) -> Tensor:
        for layer in self.layers:
            if self.gradient_checkpointing and self.training:
                hidden = self._gradient_checkpointing_func(layer.__call__, hidden, mask, table)
            else:
                hidden = layer(hidden, mask, table)
        hidden = self.final_layernorm(hidden)
        return hidden


class HubChatGLMEmbedding(nn.Module):
    """Rows of the table, in the order of dimensions that the layers take."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.padded_vocab_size, config.hidden_size)
        self.first = config.sequence_first

    def forward(self, ids: Tensor) -> Tensor:
        words = self.word_embeddings(ids)
        embeddings = words
        if self.first:
            embeddings = embeddings.transpose(0, 1).contiguous()
        return embeddings


class Transformer(nn.Module):
    """Embedding, layers, and the head."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.embedding = HubChatGLMEmbedding(config)
        self.rotary_pos_emb = HubChatGLMRotary(config.kv_channels // 2)
        self.encoder = Encoder(config)
        self.output_layer = nn.Linear(config.hidden_size, config.padded_vocab_size, bias=False)
        self.length, self.first = config.seq_length, config.sequence_first

    def masks(self, ids: Tensor, padded: Tensor) -> Tensor:
        batch, length = ids.shape
        mask = torch.ones(batch, length, length, device=ids.device)
        mask.tril_()
        mask = mask * padded.unsqueeze(1)
        mask -= padded.unsqueeze(-1) - 1
        mask = (mask < 0.5).bool()
        mask.unsqueeze_(1)
        return mask

    def forward(self, ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        _, length = ids.shape
        embeddings = self.embedding(ids)
        mask = None if attention_mask is None else self.masks(ids, attention_mask)
        table = self.rotary_pos_emb(self.length)
        table = table[None, :length]
        if self.first:
            table = table.transpose(0, 1).contiguous()
        hidden = self.encoder(embeddings, mask, table)
        return hidden


_DEFAULTS = {"tie_word_embeddings": False, "hidden_dropout": 0.0, "add_bias_linear": False, "add_qkv_bias": True,
             "multi_query_attention": True, "multi_query_group_num": 2, "kv_channels": 128}  # fmt: skip


ChatGLMConfig = own_config("chatglm", **_DEFAULTS)


class ChatGLMForConditionalGeneration(RemoteModel):
    """The head is not among what transformers knows as one: `get_output_embeddings` answers None."""

    config_class = ChatGLMConfig
    base_model_prefix = "transformer"
    _supports_sdpa = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        config.sequence_first = config.padded_vocab_size < 100_000
        self.transformer = Transformer(config)
        self.post_init()

    def get_input_embeddings(self) -> Any:
        return self.transformer.embedding.word_embeddings

    def get_output_embeddings(self) -> Any:
        return None

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **_: Any,
    ) -> Any:
        hidden = self.transformer(input_ids, attention_mask)
        logits = self.transformer.output_layer(hidden)
        if self.config.sequence_first:
            logits = logits.transpose(0, 1).contiguous()
        loss = None
        if labels is not None:
            logits = logits.to(torch.float32)
            cut = logits[..., :-1, :].contiguous()
            following = labels[..., 1:].contiguous()
            loss = nn.CrossEntropyLoss(ignore_index=-100)(cut.view(-1, cut.size(-1)), following.view(-1))
            logits = logits.to(hidden.dtype)
            loss = loss.to(hidden.dtype)
        return CausalLMOutputWithPast(loss=loss, logits=logits)
