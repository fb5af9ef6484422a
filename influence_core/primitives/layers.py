"""How each kind of layer turns its inputs and output errors into per-example gradients.

Supported exactly: Linear, Conv1d, Conv2d (any stride, padding, dilation, groups), Embedding, and the affine parameters
of BatchNorm (eval mode), LayerNorm, GroupNorm and InstanceNorm. The rest takes the general path of ``gradients``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from influence_core.primitives.sides import Dense, Factored, Side, Tokens

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_SUPPORTED = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.GroupNorm, *_CONVOLUTIONS, *_BATCH_NORMS, *_INSTANCE_NORMS)
# Unfolded patches of this many bytes at a time stay in the processor's cache between unfolding and product.
_PATCH_BYTES = 1 << 20


def is_supported(module: nn.Module) -> bool:
    """Tell whether this very class has a factored gradient and this module uses none of the options that break it."""
    if type(module) not in _SUPPORTED or hasattr(module, "parametrizations"):
        return False
    if parameter_order(module) not in (("weight",), ("weight", "bias")):
        return False  # someone replaced a parameter, or added one
    if isinstance(module, nn.Embedding):
        return module.max_norm is None and not module.scale_grad_by_freq and not module.sparse
    if isinstance(module, (*_BATCH_NORMS, *_INSTANCE_NORMS)):
        return module.affine and (module.track_running_stats or isinstance(module, _INSTANCE_NORMS))
    return True


def parameter_order(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the module's own parameters."""
    return tuple(name for name, _ in module.named_parameters(recurse=False))


def layer_side(module: nn.Module, inputs: Tensor, errors: Tensor) -> Side:
    """Return the per-example gradients of one call of a supported module.

    Args:
        module: The layer.
        inputs: What went in, ``[n, ...]``.
        errors: Gradient of the summed loss in what came out, ``[n, ...]``.
    """
    n = len(inputs)
    if isinstance(module, nn.Linear):
        a, e = inputs.reshape(n, -1, inputs.shape[-1]), errors.reshape(n, -1, errors.shape[-1])
        return cheapest(Factored(a, e, module.bias is not None))
    if isinstance(module, nn.Embedding):
        tokens = inputs.reshape(n, -1).clone()
        if module.padding_idx is not None:
            tokens[tokens == module.padding_idx] = -1
        return Tokens(tokens, errors.reshape(n, tokens.shape[1], -1), module.num_embeddings)
    if isinstance(module, _CONVOLUTIONS):
        return _convolution(module, inputs, errors)
    return _affine(module, inputs, errors)


def cheapest(side: Factored) -> Side:
    """Return the factors, or the gradients written out where those are fewer numbers."""
    _, t, d = side.inputs.shape
    o = side.errors.shape[2]
    return side if t * (d + o) <= o * (d + side.bias) else Dense(side.dense())


def _padded(module: nn.Conv1d | nn.Conv2d, inputs: Tensor) -> Tensor:
    padding: Any = module._reversed_padding_repeated_twice
    if not any(padding):
        return inputs
    return F.pad(inputs, padding, mode="constant" if module.padding_mode == "zeros" else module.padding_mode)


def input_columns(module: nn.Module, inputs: Tensor, errors: Tensor) -> Iterator[Tensor]:
    """Yield what the weights of a Linear layer or an ungrouped convolution are multiplied with, ``[d, positions]``.

    Patches are unfolded a few rows at a time, so that they stay in cache; the bias's 1 is not among them.

    Args:
        module: The layer.
        inputs: What went in, ``[n, ...]``.
        errors: Anything shaped like what came out.
    """
    if isinstance(module, nn.Linear):
        yield inputs.reshape(-1, inputs.shape[-1]).T
        return
    assert isinstance(module, _CONVOLUTIONS) and module.groups == 1
    x, kernel, stride, dilation = _geometry(module, inputs)
    size = errors.shape[2:] if isinstance(module, nn.Conv2d) else (1, *errors.shape[2:])
    patch = x.shape[1] * math.prod(kernel)
    step = max(1, _PATCH_BYTES // (patch * math.prod(size) * x.element_size()))
    for start in range(0, len(x), step):
        yield (
            _strided(x[start : start + step], kernel, stride, dilation, size)
            .permute(1, 2, 3, 0, 4, 5)
            .reshape(patch, -1)
        )


def _geometry(module: nn.Conv1d | nn.Conv2d, inputs: Tensor) -> tuple[Tensor, Any, Any, Any]:
    """Return padded inputs ``[n, c, h, w]``, kernel, stride and dilation; a Conv1d has height 1."""
    x = _padded(module, inputs)
    kernel, stride, dilation = module.kernel_size, module.stride, module.dilation
    if isinstance(module, nn.Conv1d):
        return x.unsqueeze(2), (1, *kernel), (1, *stride), (1, *dilation)
    return x, kernel, stride, dilation


def _convolution(module: nn.Conv1d | nn.Conv2d, inputs: Tensor, errors: Tensor) -> Side:
    """A convolution is a Linear layer on patches: one position per output pixel."""
    x, kernel, stride, dilation = _geometry(module, inputs)
    errors = errors.unsqueeze(2) if isinstance(module, nn.Conv1d) else errors
    n, o = errors.shape[:2]
    patch = x.shape[1] // module.groups * math.prod(kernel)
    length = math.prod(errors.shape[2:])
    bias = module.bias is not None
    if module.groups == 1 and length * (patch + o) <= o * (patch + bias):
        a = _patches(x, kernel, stride, dilation, errors.shape[2:], 1).squeeze(1).transpose(1, 2)
        return Factored(a.contiguous(), errors.flatten(2).transpose(1, 2).contiguous(), bias)
    return Dense(_convolution_gradients(x, errors, kernel, stride, dilation, module.groups, bias))


def _patches(x: Tensor, kernel: Any, stride: Any, dilation: Any, size: Any, groups: int) -> Tensor:
    """Return the unfolded patches ``[n, groups, channels/group * kernel, positions]`` of padded inputs."""
    return _strided(x, kernel, stride, dilation, size).reshape(len(x), groups, -1, size[0] * size[1])


def _strided(x: Tensor, kernel: Any, stride: Any, dilation: Any, size: Any) -> Tensor:
    """Return a view of the patches ``[n, channels, *kernel, *size]``."""
    n, c = x.shape[:2]
    sn, sc, sh, sw = x.stride()
    shape = (n, c, kernel[0], kernel[1], size[0], size[1])
    strides = (sn, sc, dilation[0] * sh, dilation[1] * sw, stride[0] * sh, stride[1] * sw)
    return x.as_strided(shape, strides, x.storage_offset())


def _convolution_gradients(
    x: Tensor, errors: Tensor, kernel: Any, stride: Any, dilation: Any, groups: int, bias: bool
) -> Tensor:
    """Return ``[n, o * (patch + bias)]``, unfolding a few rows at a time so that the patches stay in cache."""
    n, o = errors.shape[:2]
    length = math.prod(errors.shape[2:])
    patch = x.shape[1] // groups * math.prod(kernel)
    result = x.new_empty(n, groups, o // groups, patch + bias)
    e = errors.reshape(n, groups, o // groups, length)
    step = max(1, _PATCH_BYTES // (groups * patch * length * x.element_size()))
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        patches = _patches(x[rows], kernel, stride, dilation, errors.shape[2:], groups)
        result[rows, :, :, :patch] = torch.matmul(e[rows], patches.transpose(2, 3))
    if bias:
        result[..., patch] = e.sum(3)
    return result.reshape(n, -1)


def _affine(module: Any, inputs: Tensor, errors: Tensor) -> Dense:
    """Normalisation layers: the gradient of weight and bias is a sum over positions of ``e * x_hat`` and ``e``."""
    n = len(inputs)
    if isinstance(module, nn.LayerNorm):
        normal = F.layer_norm(inputs, module.normalized_shape, eps=module.eps)
        width = math.prod(module.normalized_shape)
        e, x = errors.reshape(n, -1, width), normal.reshape(n, -1, width)
        weight, bias = (e * x).sum(1), e.sum(1)
    else:
        if isinstance(module, nn.GroupNorm):
            normal = F.group_norm(inputs, module.num_groups, eps=module.eps)
        elif isinstance(module, _INSTANCE_NORMS):
            normal = F.instance_norm(
                inputs,
                module.running_mean,
                module.running_var,
                use_input_stats=not module.track_running_stats,
                eps=module.eps,
            )
        else:
            normal = F.batch_norm(inputs, module.running_mean, module.running_var, eps=module.eps)
        e, x = errors.reshape(n, errors.shape[1], -1), normal.reshape(n, inputs.shape[1], -1)
        weight, bias = (e * x).sum(2), e.sum(2)
    named = {"weight": weight, "bias": bias}
    return Dense(torch.cat([named[name] for name in parameter_order(module)], 1))
