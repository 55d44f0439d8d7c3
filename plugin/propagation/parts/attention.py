"""Attention, written in operations with known rules (Vaswani et al. 2017)."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import NoRuleError


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(Q K^T / sqrt(d) + mask) V, with the arguments of `torch.nn.functional.scaled_dot_product_attention`."""
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    scores = torch.matmul(query, key.transpose(-2, -1)) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        causal = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
        scores = scores.masked_fill(~causal, -math.inf)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return torch.matmul(F.dropout(F.softmax(scores, -1), dropout_p), value)


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Multi-head attention with the arguments of `torch.nn.functional.multi_head_attention_forward`.

    Inputs are `(length, N, channels)` or `(length, channels)`.

    Raises:
        NoRuleError: an option that no torchvision network uses (added key or value biases, zero attention,
            static keys or values).
    """
    if bias_k is not None or bias_v is not None or add_zero_attn or static_k is not None or static_v is not None:
        raise NoRuleError("attention with bias_k, bias_v, add_zero_attn, static_k or static_v has no LRP rule")
    if query.ndim == 2:
        query, key, value = (tensor.unsqueeze(1) for tensor in (query, key, value))
        result, weights = multi_head_attention_forward(
            query,
            key,
            value,
            embed_dim_to_check,
            num_heads,
            in_proj_weight,
            in_proj_bias,
            None,
            None,
            False,
            dropout_p,
            out_proj_weight,
            out_proj_bias,
            training,
            None if key_padding_mask is None else key_padding_mask.unsqueeze(0),
            need_weights,
            attn_mask,
            use_separate_proj_weight,
            q_proj_weight,
            k_proj_weight,
            v_proj_weight,
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
        )
        return result.squeeze(1), None if weights is None else weights.squeeze(0)
    if use_separate_proj_weight:
        projections = [q_proj_weight, k_proj_weight, v_proj_weight]
    else:
        projections = [None] * 3 if in_proj_weight is None else list(in_proj_weight.chunk(3))
    biases = [None] * 3 if in_proj_bias is None else list(in_proj_bias.chunk(3))

    def heads(tensor: Tensor, weight: Any, bias: Tensor | None) -> Tensor:
        """(length, N, channels) to (N, heads, length, channels per head)."""
        result: Tensor = F.linear(tensor, weight, bias).unflatten(-1, (num_heads, -1)).permute(1, 2, 0, 3)
        return result

    queries, keys, values = map(heads, (query, key, value), projections, biases)
    mask = attn_mask
    if mask is not None and mask.ndim == 3:
        mask = mask.unflatten(0, (-1, num_heads))
    if key_padding_mask is not None:
        padding = key_padding_mask[:, None, None, :]
        if padding.dtype == torch.bool:
            padding = torch.zeros(padding.shape, dtype=query.dtype, device=query.device).masked_fill(padding, -math.inf)
        if mask is not None and mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill(mask, -math.inf)
        mask = padding if mask is None else mask + padding
    elif mask is not None and mask.dtype == torch.bool:
        mask = ~mask  # True hides a position here, and shows it in scaled_dot_product_attention
    dropout = dropout_p if training else 0.0
    weights_returned = None
    if need_weights:
        mixed, weights_returned = _weighed(queries, keys, values, mask, dropout)
        weights_returned = weights_returned.mean(1) if average_attn_weights else weights_returned
    else:
        mixed = F.scaled_dot_product_attention(queries, keys, values, mask, dropout, is_causal and mask is None)
    return F.linear(mixed.permute(2, 0, 1, 3).flatten(2), out_proj_weight, out_proj_bias), weights_returned


def _weighed(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> tuple[Tensor, Tensor]:
    """Attention, and its weights after dropout `(N, heads, length, length)`."""
    scores = torch.matmul(query * (1 / math.sqrt(query.shape[-1])), key.transpose(-2, -1))
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    weights = F.dropout(F.softmax(scores, -1), dropout)
    return torch.matmul(weights, value), weights
