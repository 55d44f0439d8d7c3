"""The table of operations: one row for each, with all that the engine knows of it.

A row holds the spellings of an operation, its kind, the arguments in which it is linear, and its nodes in autograd's
graph. The function mode, LRP, the refusals, the deconvnet without an image, recordings and the ledger read these facts
here, and nowhere else. `operation_of` finds the row of a function, in any of its spellings:
`F.relu(x)`, `torch.relu(x)`, `x.relu()` and `torch.ops.aten.relu.default(x)` are one operation. In-place spellings
become the out-of-place operation first (see `in_place`).

An operation of your own, a `torch.library` operation, a Python function that launches a kernel or a class of modules,
gets a row by `registering.register`.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import parts
from .kinds import Kind, Operation, Written

_HOMES = (F, torch, Tensor, torch._C._nn, torch.special, torch.linalg)
_VISION = torch.ops.torchvision
_STATISTICS = ("running_mean", "running_var")


def _spellings(names: Iterable[str], homes: Iterable[Any]) -> tuple[Any, ...]:
    """Every public function, method and property of these names."""
    found = [getattr(home, name) for home in homes for name in names if hasattr(home, name)]
    own = [entry if callable(entry) else getattr(entry, "__get__", None) for entry in found]  # properties: their getter
    return tuple(entry for entry in own if entry is not None)


def _row(names: str, kind: Kind, aliases: str = "", homes: Iterable[Any] = _HOMES, **facts: Any) -> Iterator[Operation]:
    """A row for each of the names; lists of words are split."""
    for field in ("arguments", "nodes", "linear_in"):
        facts[field] = tuple(facts.get(field, "").split())
    for name in names.split():
        yield Operation(name, kind, _spellings([name, *aliases.split()], homes), **facts)


def _parts(names: str, activations: bool = False, **facts: Any) -> Iterator[Operation]:
    """Rows of the operations that `parts` has functions for."""
    for name in names.split():
        written = getattr(parts, name)
        yield from _row(name, Kind.COMPOSITE, parts=written, contains_activations=activations, **facts)


# fmt: off
def _structure() -> Iterator[Operation]:
    """Queries, creation and movements of values."""
    yield from _row("dim size stride numel nelement is_floating_point is_complex __len__ shape ndim dtype device "
                    "layout requires_grad is_cuda is_sparse is_mps is_quantized is_nested is_contiguous is_leaf "
                    "is_signed element_size itemsize nbytes storage_offset get_device data_ptr grad_fn retain_grad "
                    "register_hook sym_size sym_numel sym_stride sym_storage_offset", Kind.QUESTION)
    yield from _row("requires_grad_ resize_ resize_as_ resize_as_sparse_ set_ share_memory_ rename_", Kind.STATE)
    yield from _row("squeeze_ unsqueeze_ transpose_ t_ swapaxes_ swapdims_ detach_", Kind.MOVEMENT, shape_only=True)
    # `Tensor.bernoulli` reads its probabilities from the tensor that `bernoulli_` overwrites.
    yield from _row("bernoulli_", Kind.CREATION)
    yield from _row("zeros zeros_like new_zeros", Kind.CREATION, number=0.0)
    yield from _row("ones ones_like new_ones", Kind.CREATION, number=1.0)
    yield from _row("full", Kind.CREATION, arguments="size fill_value")
    yield from _row("full_like fill", Kind.CREATION, arguments="input fill_value")
    yield from _row("new_full", Kind.CREATION, arguments="input size fill_value")
    yield from _row("empty empty_like new_empty empty_strided scalar_tensor tensor as_tensor new_tensor arange "
                    "linspace eye rand randn rand_like randn_like randint randperm argmax argmin argsort item one_hot "
                    "tolist numpy bincount nonzero argwhere unique", Kind.CREATION)
    yield from _row("permute transpose swapaxes swapdims movedim moveaxis t T mT mH H", Kind.MOVEMENT, keeps_signs=True)
    yield from _row("view reshape flatten unflatten squeeze unsqueeze expand broadcast_to ravel view_copy _unsafe_view",
                    Kind.MOVEMENT, keeps_signs=True, keeps_order=True)
    yield from _row("view_as reshape_as expand_as", Kind.MOVEMENT, keeps_signs=True, keeps_order=True, first_only=True)
    yield from _row("narrow select repeat tile roll flip fliplr flipud rot90 unbind split "
                    "split_with_sizes tensor_split chunk index_select gather pixel_shuffle pixel_unshuffle "
                    "channel_shuffle native_channel_shuffle unfold fold as_strided __getitem__ repeat_interleave "
                    "diagonal tril triu take take_along_dim hsplit vsplit dsplit meshgrid atleast_1d atleast_2d "
                    "atleast_3d masked_select narrow_copy select_copy unsafe_chunk unsafe_split broadcast_tensors "
                    "diag_embed diag diagflat im2col col2im adjoint unsafe_split_with_sizes __reversed__ "
                    "cartesian_prod combinations to_dense to_sparse to_sparse_csr to_sparse_csc to_sparse_coo coalesce "
                    "values _values", Kind.MOVEMENT, keeps_signs=True)
    # Of exported programs.
    yield from _row("slice index _unsafe_index slice_copy squeeze_copy unsqueeze_copy expand_copy permute_copy "
                    "transpose_copy t_copy unbind_copy split_copy split_with_sizes_copy unfold_copy diagonal_copy "
                    "as_strided_copy alias_copy", Kind.MOVEMENT, keeps_signs=True)
    packing = (torch._C._VariableFunctions,)
    yield from _row("_pack_padded_sequence _pad_packed_sequence", Kind.MOVEMENT, homes=packing, keeps_signs=True)
    yield from _row("clone contiguous alias detach data detach_copy positive type float double half bfloat16 "
                    "cpu cuda _to_copy pin_memory lift_fresh as_subclass", Kind.MOVEMENT, keeps_signs=True,
                    identity=True)
    yield from _row("view_as_real view_as_complex real imag complex conj conj_physical resolve_conj resolve_neg "
                    "fftshift ifftshift", Kind.MOVEMENT, homes=(*_HOMES, torch.fft))
    yield from _row("to type_as", Kind.MOVEMENT, keeps_signs=True, identity=True, first_only=True)
    joining: dict[str, Any] = {"keeps_signs": True, "adds_constants": True, "joins": True}
    yield from _row("cat concat concatenate stack", Kind.MOVEMENT, arguments="tensors dim", **joining)
    yield from _row("hstack vstack dstack column_stack row_stack", Kind.MOVEMENT, **joining)
    padding: dict[str, Any] = {"keeps_signs": True, "adds_constants": True, "pads": True}
    yield from _row("pad", Kind.MOVEMENT, arguments="input pad mode value", **padding)
    yield from _row("constant_pad_nd", Kind.MOVEMENT, arguments="input pad value", **padding)
    yield from _row("block_diag reflection_pad1d reflection_pad2d reflection_pad3d "
                    "replication_pad1d replication_pad2d replication_pad3d", Kind.MOVEMENT, keeps_signs=True,
                    adds_constants=True)


def _sums() -> Iterator[Operation]:
    """Sums and choices."""
    yield from _row("add", Kind.SUM, "__add__ __radd__", keeps_signs=True, adds_constants=True, nodes="Add")
    yield from _row("sub", Kind.SUM, "subtract __sub__", adds_constants=True)
    yield from _row("rsub", Kind.SUM, "__rsub__", adds_constants=True)
    yield from _row("neg", Kind.SUM, "negative __neg__")
    average: dict[str, Any] = {"keeps_signs": True, "adds_constants": True}
    yield from _row("avg_pool1d avg_pool2d avg_pool3d", Kind.LINEAR, arguments="input kernel_size", **average)
    yield from _row("adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d "
                    "_adaptive_avg_pool3d", Kind.LINEAR, arguments="input output_size", **average)
    yield from _row("sum mean nansum nanmean _sparse_sum cumsum interpolate upsample upsample_bilinear "
                    "upsample_nearest trace upsample_bilinear2d upsample_nearest2d upsample_bicubic2d "
                    "upsample_linear1d upsample_trilinear3d upsample_nearest1d upsample_nearest3d "
                    "_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d "
                    "_upsample_bilinear2d_aa _upsample_bicubic2d_aa scatter_add index_add scatter_reduce index_reduce "
                    "scatter masked_scatter index_fill index_copy slice_scatter select_scatter diagonal_scatter diff "
                    "trapezoid trapz cumulative_trapezoid gradient deg2rad rad2deg segment_reduce sum_to_size "
                    "as_strided_scatter affine_grid affine_grid_generator max_unpool1d max_unpool2d max_unpool3d",
                    Kind.LINEAR, keeps_signs=True, adds_constants=True)
    fourier = "fft ifft rfft irfft hfft ihfft fft2 ifft2 rfft2 irfft2 hfft2 ihfft2 fftn ifftn rfftn irfftn hfftn ihfftn"
    yield from _row(fourier, Kind.LINEAR, homes=(torch.fft,))
    yield from _row("stft istft _fft_r2c _fft_c2c _fft_c2r", Kind.LINEAR)
    # Rounding to a grid is a constant that is added, as its gradient says.
    yield from _row("fake_quantize_per_tensor_affine fake_quantize_per_channel_affine "
                    "fused_moving_avg_obs_fake_quant", Kind.LINEAR, adds_constants=True)
    yield from _row("grid_sample grid_sampler grid_sampler_2d grid_sampler_3d", Kind.SAMPLING, linear_in="input",
                    arguments="input grid")
    yield from _row("roi_align roi_pool ps_roi_align ps_roi_pool", Kind.SAMPLING, homes=(_VISION,),
                    arguments="input", linear_in="input")
    yield from _row("deform_conv2d", Kind.SAMPLING, homes=(_VISION,), linear_in="input",
                    arguments="input weight offset mask bias stride_h stride_w pad_h pad_w dilation_h dilation_w "
                    "groups offset_groups use_mask")
    random: dict[str, Any] = {"arguments": "input p training", "training": ("training", True)}
    yield from _row("dropout dropout1d dropout2d dropout3d", Kind.DROPOUT, keeps_signs=True, keeps_order=True, **random)
    yield from _row("alpha_dropout feature_alpha_dropout", Kind.DROPOUT, **random)
    yield from _row("feature_dropout", Kind.DROPOUT, keeps_signs=True)
    yield from _row("max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices "
                    "max_pool3d_with_indices adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d "
                    "adaptive_max_pool1d_with_indices adaptive_max_pool2d_with_indices "
                    "adaptive_max_pool3d_with_indices", Kind.MAX_POOLING, keeps_signs=True)
    yield from _row("amax amin topk sort median nanmedian quantile nanquantile mode kthvalue cummax cummin aminmax "
                    "msort fractional_max_pool2d fractional_max_pool3d", Kind.SELECTION, keeps_signs=True)
    yield from _row("max min", Kind.MASK, keeps_signs=True)  # for two tensors; for one they are reductions
    yield from _row("maximum minimum fmax fmin where masked_fill index_put", Kind.MASK)
    yield from _parts("copy", activations=True, homes=())
    yield Operation("assignment", Kind.MASK)  # x[...] = y, and other writes that have no form out of place


def _activations() -> Iterator[Operation]:
    """Activations, and the operations that they are written with."""
    own: dict[str, Any] = {"non_decreasing": True}
    yield from _row("relu", Kind.ACTIVATION, non_negative=True, nodes="Relu", **own)
    yield from _row("relu6", Kind.ACTIVATION, non_negative=True, **own)
    yield from _row("softplus", Kind.ACTIVATION, non_negative=True, nodes="Softplus", **own)
    yield from _row("leaky_relu", Kind.ACTIVATION, keeps_signs=True, nodes="LeakyRelu", **own)
    yield from _row("rrelu", Kind.ACTIVATION, keeps_signs=True, nodes="RreluWithNoise", **own)
    yield from _parts("rrelu_with_noise_functional", activations=True, homes=())
    yield from _row("prelu", Kind.ACTIVATION, keeps_signs=True, nodes="PreluKernel")
    yield from _row("elu", Kind.ACTIVATION, nodes="Elu", **own)
    yield from _row("celu", Kind.ACTIVATION, nodes="Celu", **own)
    yield from _row("selu", Kind.ACTIVATION, **own)
    yield from _row("gelu", Kind.ACTIVATION, nodes="Gelu")
    yield from _row("silu", Kind.ACTIVATION, nodes="Silu")
    yield from _row("mish", Kind.ACTIVATION, nodes="Mish")
    yield from _row("hardswish", Kind.ACTIVATION, nodes="Hardswish")
    yield from _row("tanh", Kind.ACTIVATION, nodes="Tanh", **own)
    yield from _row("sigmoid", Kind.ACTIVATION, "expit", non_negative=True, weight=True, nodes="Sigmoid", **own)
    yield from _row("hardsigmoid", Kind.ACTIVATION, non_negative=True, weight=True, nodes="Hardsigmoid", **own)
    yield from _row("logsigmoid", Kind.ACTIVATION, "log_sigmoid", nodes="LogSigmoid", **own)
    yield from _row("softshrink hardshrink", Kind.ACTIVATION, **own)
    yield from _parts("softsign tanhshrink glu", activations=True)
    yield from _row("hardtanh clamp clip clamp_min clamp_max threshold nan_to_num", Kind.POINTWISE)
    yield from _row("erf erfc erfcx ndtr log_ndtr logaddexp logaddexp2 xlogy xlog1py sin cos tan sinh cosh expm1 sqrt "
                    "atan arctan atan2 arctan2 asin arcsin acos arccos asinh arcsinh acosh arccosh atanh arctanh "
                    "erfinv ndtri logit copysign sinc entr digamma psi polygamma lgamma gammaln i0 i0e i1 i1e",
                    Kind.POINTWISE)
    yield from _row("abs", Kind.POINTWISE, "absolute __abs__", non_negative=True, even=True)
    yield from _row("square", Kind.POINTWISE, non_negative=True, even=True)
    yield from _row("pow", Kind.POINTWISE, "__pow__ float_power", arguments="input exponent")
    yield from _row("remainder", Kind.POINTWISE, "__mod__ __rmod__")
    yield from _row("fmod frac", Kind.POINTWISE)
    yield from _row("exp exp2", Kind.POINTWISE, non_negative=True, weight=True, even=True,
                    remedy="explain the values before the exponential, such as logits before a softmax")
    yield from _row("rpow", Kind.POINTWISE, "__rpow__", non_negative=True, weight=True, even=True,
                    remedy="explain the values before the exponential")
    yield from _row("log log2 log10 log1p", Kind.POINTWISE, remedy="explain the values before the logarithm")
    yield from _row("rsqrt", Kind.POINTWISE, weight=True, non_negative=True,
                    remedy="multiply a signal with the reciprocal root, or explain the values before it")
    yield from _row("reciprocal", Kind.POINTWISE,
                    remedy="a number divided by a signal has no relevance to hand down: explain the values before "
                    "it, or hold it constant with detach()")
    yield from _row("gt lt ge le eq ne greater less greater_equal less_equal not_equal __gt__ __lt__ __ge__ "
                    "__le__ __eq__ __ne__ sign sgn signbit floor ceil round trunc fix floor_divide __floordiv__ "
                    "__rfloordiv__ heaviside logical_and logical_or logical_not logical_xor bitwise_and bitwise_or "
                    "bitwise_not bitwise_xor __and__ __or__ __invert__ __xor__ __rand__ __ror__ isnan isinf isfinite "
                    "isposinf isneginf isclose bool int long short char byte bucketize searchsorted", Kind.STEP)


def _products() -> Iterator[Operation]:
    """Products and linear layers."""
    yield from _row("mul", Kind.PRODUCT, "multiply __mul__ __rmul__", keeps_signs=True)
    yield from _row("prod", Kind.FACTORS, keeps_signs=True)
    yield from _row("div", Kind.QUOTIENT, "divide true_divide __truediv__ __div__", arguments="input other")
    yield from _row("rdiv", Kind.QUOTIENT, "__rtruediv__ __rdiv__", arguments="other input")
    yield from _row("matmul", Kind.CONTRACTION, "__matmul__", nodes="Mm Bmm")
    yield from _row("rmatmul", Kind.CONTRACTION, "__rmatmul__")
    yield from _row("mm bmm mv dot vdot inner outer ger vecdot kron cross einsum tensordot", Kind.CONTRACTION)
    yield from _row("sparse_mm", Kind.CONTRACTION, "mm", homes=(torch.sparse,))
    yield from _row("bilinear", Kind.BILINEAR)
    yield from _parts("addmm addmv addbmm baddbmm addr multi_dot chain_matmul convolution")
    yield from _parts("addcmul addcdiv lerp", activations=True)  # activations can be written with them
    yield from _row("conv1d conv2d conv3d", Kind.CONVOLUTION, nodes="Convolution")
    yield from _row("conv_transpose1d conv_transpose2d conv_transpose3d", Kind.TRANSPOSED_CONVOLUTION)
    yield from _row("linear", Kind.MATRIX_PRODUCT, nodes="Addmm Mm")
    yield from _row("embedding embedding_bag", Kind.EMBEDDING)


def _norms() -> Iterator[Operation]:
    """Norms and statistics, attention and recurrent layers."""
    batch: dict[str, Any] = {"training": ("training", True), "statistics": _STATISTICS}
    instance: dict[str, Any] = {"training": ("use_input_stats", True), "statistics": _STATISTICS}
    functional = "input running_mean running_var weight bias"
    operator = "input weight bias running_mean running_var"
    yield from _row("batch_norm", Kind.BATCH_NORM, homes=(F,), arguments=f"{functional} training momentum eps",
                    training=("training", False), statistics=_STATISTICS, nodes="NativeBatchNorm")
    yield from _row("batch_norm native_batch_norm", Kind.BATCH_NORM, homes=(torch,), operator=True,
                    arguments=f"{operator} training momentum eps", **batch)
    yield from _parts("_native_batch_norm_legit_no_training _native_batch_norm_legit", homes=(torch,))
    yield from _row("instance_norm", Kind.NORM, homes=(F,), arguments=f"{functional} use_input_stats momentum eps",
                    **instance)
    yield from _row("instance_norm", Kind.NORM, homes=(torch,), operator=True,
                    arguments=f"{operator} use_input_stats momentum eps", **instance)
    yield from _row("layer_norm", Kind.NORM, arguments="input normalized_shape weight bias eps",
                    nodes="NativeLayerNorm")
    yield from _row("rms_norm", Kind.NORM, arguments="input normalized_shape weight eps")
    yield from _row("group_norm", Kind.NORM, arguments="input num_groups weight bias eps", nodes="NativeGroupNorm")
    yield from _row("normalize", Kind.NORM, homes=(F,), arguments="input p dim eps")
    yield from _row("var std var_mean std_mean norm vector_norm matrix_norm frobenius_norm", Kind.STATISTIC,
                    non_negative=True)
    yield from _row("softmax", Kind.SOFTMAX, "_softmax", weight=True, non_negative=True)
    yield from _row("softmin", Kind.SOFTMAX, weight=True, non_negative=True)
    yield from _row("log_softmax", Kind.LOG_SOFTMAX, "_log_softmax",
                    remedy="remove the final log_softmax, or explain the logits before it")
    yield from _row("logsumexp", Kind.LOG_SOFTMAX, remedy="explain the values before the logarithm")
    yield from _parts("scaled_dot_product_attention",
                      arguments="query key value attn_mask dropout_p is_causal scale enable_gqa")
    yield from _parts("multi_head_attention_forward", homes=(F,))
    yield from _parts("local_response_norm cosine_similarity")
    yield from _parts("pairwise_distance", activations=True)
    yield from _parts("hypot", activations=True)
    yield from _parts("mse_loss l1_loss", activations=True)
    yield from _parts("cdist dist pdist", activations=True)
    yield from _row("_cdist_forward", Kind.COMPOSITE, parts=parts.cdist, contains_activations=True)
    yield from _row("_sparse_addmm", Kind.COMPOSITE, "addmm", homes=(torch.sparse,), parts=parts.addmm)
    yield from _parts("lp_pool1d lp_pool2d lp_pool3d", activations=True)
    yield from _parts("native_layer_norm native_group_norm", homes=(torch,))
    # None of them is pointwise, nor has an activation inside.
    yield from _row("cumprod logcumsumexp det logdet slogdet inv inv_ex inverse pinv pinverse solve solve_ex "
                    "solve_triangular triangular_solve cholesky cholesky_ex cholesky_inverse cholesky_solve lu "
                    "lu_factor lu_factor_ex lu_solve lu_unpack ldl_factor ldl_solve qr eig eigh eigvals eigvalsh "
                    "svd svdvals lstsq lobpcg pca_lowrank svd_lowrank cond matrix_exp matrix_power "
                    "householder_product orgqr ormqr tensorinv "
                    "tensorsolve vander cov corrcoef norm_except_dim nuclear_norm conv_tbc ldexp "
                    "gumbel_softmax cross_entropy nll_loss ctc_loss", Kind.UNRULED)
    yield from _parts("lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell", True, homes=(torch,))
# fmt: on


OPERATIONS: tuple[Operation, ...] = (*_structure(), *_sums(), *_activations(), *_products(), *_norms())
BY_FUNCTION: dict[Any, Operation] = {function: row for row in OPERATIONS for function in row.functions}
# Operators are found by name: where functions of one name take other arguments, the row for the operator is used.
_BY_NAME: dict[str, Operation] = {
    name: row
    for row in sorted(OPERATIONS, key=lambda row: row.operator)
    for name in {row.name, *(getattr(function, "__name__", row.name) for function in row.functions)}
}
MODULES: dict[type[nn.Module], Operation] = {}


@lru_cache(maxsize=4096)
def operation_of(function: Callable[..., Any]) -> Operation | None:
    """The row of a function, method, property or operator; None if it has none."""
    row = BY_FUNCTION.get(function)
    if row is None and isinstance(function, Written):
        return _BY_NAME["assignment"]
    if row is None and is_operator(function):
        own = BY_FUNCTION.get(packet_of(function))
        if own is not None:
            return own
        namespace, name = str(function).split(".")[:2]
        return _BY_NAME.get(name) if namespace in ("aten", "torchvision") else None
    return row


def packet_of(operator: Any) -> Any:
    """An operator with all its overloads, which are one operation."""
    operator = getattr(operator, "_opoverload", operator)  # an operator made by `torch.library.custom_op`
    return getattr(operator, "overloadpacket", operator)


def is_operator(function: Any) -> bool:
    """Whether a function is an operator of PyTorch's library, or of another."""
    return isinstance(function, (torch._ops.OpOverload, torch._ops.OpOverloadPacket))


def is_foreign(function: Any) -> bool:
    """Whether an operation without a row in the table is of another library than PyTorch."""
    if not is_operator(function):
        return isinstance(function, FunctionType) and function.__module__.split(".")[0] != "torch"
    namespace = str(function).split(".")[0]
    return namespace not in _NAMESPACES and operation_of(function) is None


_NAMESPACES = frozenset({"aten", "prim", "prims", "torchvision", "higher_order", "profiler"})


def module_operation(kind: type[nn.Module]) -> Operation | None:
    """The row that was registered for a class of modules."""
    return MODULES.get(kind)


def registered_modules(model: nn.Module) -> set[nn.Module]:
    """The modules of a model that are of a class with a row."""
    return {module for module in model.modules() if type(module) in MODULES} if MODULES else set()
