"""LRP and the deconvnet family as their formulas say, unit by unit: plain loops in float64, to read and to compare.

A network is a list of layers, a tensor of one example the flat list of its entries (rows of a channel one after the
other). Every linear layer is its matrix, written out:

    y_j = sum_i W_ij x_i + b_j,        z_ij = x_i W_ij,        a+ = max(a, 0),   a- = min(a, 0)

where i runs over the real inputs that unit j is connected to, never over padding. A batch norm behind a linear layer is
multiplied into it: W_ij s_j and b_j s_j + t_j with s = weight / sqrt(variance + eps), t = bias - mean s.

**Relevance.** A rule splits the relevance R_j of unit j among its inputs, in proportion to parts p_ij of the inputs and
to a part c_j of the bias:

    R_i = sum_j p_ij / st(d_j) R_j,    d_j = sum_i p_ij + c_j,    st(d) = d + eps sgn(d),   sgn(0) = +1

so that c_j / st(d_j) of R_j ends in the bias, and (st(d_j) - d_j) / st(d_j) in the stabiliser.

    ===================  =======================================  =================  ===================================
    rule                 p_ij                                     c_j                from
    ===================  =======================================  =================  ===================================
    LRP-0, epsilon       z_ij                                     b_j                Bach et al. 2015, eq. 58
    z+                   z_ij+                                    b_j+ (or 0)        Montavon et al. 2017
    alpha-beta           alpha times the split by z_ij+, b_j+, minus beta times      Bach et al. 2015, eq. 60
                         the split by z_ij-, b_j-
    gamma, plain         x_i (W_ij + gamma W_ij+)                 b_j + gamma b_j+   Montavon et al. 2019
    gamma where y_j > 0  z_ij + gamma z_ij+                       b_j + gamma b_j+   Andeol et al. 2021
    gamma where y_j < 0  z_ij + gamma z_ij-                       b_j + gamma b_j-   (generalised)
    w^2                  W_ij^2                                   0                  Montavon et al. 2017
    flat                 1                                        0                  Lapuschkin et al. 2019
    z^B, l <= x <= h     z_ij - l_i W_ij+ - h_i W_ij-             0                  Montavon et al. 2017
    pass                 R_i = R_i of the output: nothing is split
    ===================  =======================================  =================  ===================================

Where there is no rule to choose: an activation y = f(x) hands R on unchanged (and nothing where y = 0, as such a unit
has no relevance); max-pooling gives all to the winner; average pooling and additions split in proportion to their
summands. R starts as the explained output itself.

**Signals.** Here m travels, the signal of the gradient; it starts as 1. Linear layers hand down W^T m, additions a copy
to either summand. Three switches make the family (Mahendran and Vedaldi 2016; Springenberg et al. 2015, Figure 1):

    ==============  ==============  =============  ===========================  =====================
    method          backward relu   forward mask   below y = relu(x)            below y = f(x)
    ==============  ==============  =============  ===========================  =====================
    gradient        no              yes            m 1[x > 0]                   m f'(x)
    deconvnet       yes             no             m+                           m+
    guided          yes             yes            m+ 1[x > 0]                  m+ f'(x)+
    linear adjoint  no              no             m                            m
    ==============  ==============  =============  ===========================  =====================

and the third says to which positions of its window (of k positions along each side) a max-pooling hands m:
"switches", the one that won; "center", number ceil(k / 2), counted from 1, along each side; "corner", the first;
"uniform", 1 / k^2 to each; "replicate", all of it to each.

>>> network = read([nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3)], shape=(1, 5, 5))
>>> relevance(network, pixels, target=1, rules=[Flat(), Epsilon()])  # one rule per linear layer, from the input up
>>> signal(network, pixels, target=1, backward_relu=True, forward_mask=True)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

Values = list[float]
Row = dict[int, float]
EPSILON = 1e-6


# --- layers -----------------------------------------------------------------------------------------------------------


@dataclass
class Linear:
    """y_j = sum_i W_ij x_i + b_j. `rows[j]` maps each input i that j is connected to, to W_ij."""

    rows: list[Row]
    bias: Values

    def forward(self, x: Values) -> Values:
        return [sum(w * x[i] for i, w in row.items()) + b for row, b in zip(self.rows, self.bias, strict=True)]

    def transpose(self, m: Values, size: int) -> Values:
        """(W^T m)_i = sum_j W_ij m_j."""
        below = [0.0] * size
        for row, signal in zip(self.rows, m, strict=True):
            for i, w in row.items():
                below[i] += w * signal
        return below


class AveragePooling(Linear):
    """The mean of each window: a linear layer to which no rule is given."""


@dataclass
class Activation:
    """y = f(x), and the slope f'."""

    function: Callable[[float], float]
    slope: Callable[[float], float]

    def forward(self, x: Values) -> Values:
        return [self.function(value) for value in x]


@dataclass
class MaxPooling:
    """`windows[j]` maps each place (row, column) in window j, counted from 0, to the input that is there, if one is."""

    kernel: tuple[int, int]
    windows: list[dict[tuple[int, int], int]]

    def winner(self, x: Values, window: dict[tuple[int, int], int]) -> int:
        """The first of the largest."""
        return max(window.values(), key=lambda i: x[i])

    def forward(self, x: Values) -> Values:
        return [x[self.winner(x, window)] for window in self.windows]

    def share(self, place: tuple[int, int], mode: str) -> float:
        """The share of its signal that a place of a window gets, for any data."""
        if mode == "center":
            return float(all(t + 1 == math.ceil(k / 2) for t, k in zip(place, self.kernel, strict=True)))
        if mode == "corner":
            return float(place == (0, 0))
        return {"uniform": 1 / (self.kernel[0] * self.kernel[1]), "replicate": 1.0}[mode]


@dataclass
class Add:
    """The last value plus an earlier one: number `source`, where 0 is the network's input."""

    source: int


class Unchanged:
    """Flattening, or a batch norm that was multiplied into the layer before it."""


Layer = Linear | Activation | MaxPooling | Add | Unchanged

SQRT_HALF, TWO_PI = math.sqrt(0.5), 2 * math.pi


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def normal(x: float) -> float:
    """The share of a standard normal distribution below x."""
    return (1 + math.erf(x * SQRT_HALF)) / 2


ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.ReLU: Activation(lambda x: max(x, 0.0), lambda x: float(x > 0)),
    nn.LeakyReLU: Activation(lambda x: x if x > 0 else 0.01 * x, lambda x: 1.0 if x > 0 else 0.01),
    nn.ELU: Activation(lambda x: x if x > 0 else math.expm1(x), lambda x: 1.0 if x > 0 else math.exp(x)),
    nn.GELU: Activation(lambda x: x * normal(x), lambda x: normal(x) + x * math.exp(-x * x / 2) / math.sqrt(TWO_PI)),
    nn.SiLU: Activation(lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x)))),
    nn.Softplus: Activation(lambda x: math.log1p(math.exp(x)), sigmoid),
    nn.Tanh: Activation(math.tanh, lambda x: 1 - math.tanh(x) ** 2),
}


# --- a network of PyTorch's modules, written out ----------------------------------------------------------------------


def read(steps: Sequence[nn.Module | int], shape: tuple[int, ...]) -> list[Layer]:
    """The layers of modules that are called one after the other.

    Args:
        steps: modules in eval mode; an int n stands for adding the n-th value to the last one, 0 being the input.
        shape: of one input, `(C, H, W)` or `(C,)`.

    Raises:
        TypeError: there is no such layer here.
    """
    layers: list[Layer] = []
    for step in steps:
        layer: Layer
        if isinstance(step, int):
            layer = Add(step)
        elif isinstance(step, nn.Linear):
            layer, shape = dense(step), (step.out_features,)
        elif isinstance(step, nn.Conv2d):
            layer, shape = convolution(step, shape)
        elif isinstance(step, nn.BatchNorm1d | nn.BatchNorm2d):
            layer = batch_norm(step, shape)
            if layers and isinstance(layers[-1], Linear) and not isinstance(layers[-1], AveragePooling):
                layers[-1], layer = folded(layers[-1], layer), Unchanged()
        elif isinstance(step, nn.MaxPool2d):
            layer, shape = max_pooling(step, shape)
        elif isinstance(step, nn.AvgPool2d):
            layer, shape = average_pooling(step, shape)
        elif isinstance(step, nn.Flatten):
            layer, shape = Unchanged(), (math.prod(shape),)
        elif type(step) in ACTIVATIONS:
            layer = ACTIVATIONS[type(step)]
        else:
            raise TypeError(f"{step} is not written out here")
        layers.append(layer)
    return layers


def numbers(tensor: torch.Tensor | None, count: int, default: float = 0.0) -> Values:
    return [default] * count if tensor is None else tensor.double().flatten().tolist()


def pair(size: int | tuple[int, ...]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def dense(module: nn.Linear) -> Linear:
    rows = [dict(enumerate(numbers(row, 0))) for row in module.weight]
    return Linear(rows, numbers(module.bias, len(rows)))


def places(
    shape: tuple[int, ...], kernel: int | tuple[int, ...], stride: int | tuple[int, ...],
    padding: int | tuple[int, ...], dilation: int | tuple[int, ...] = 1,
) -> tuple[tuple[int, int], list[dict[tuple[int, int], int]]]:  # fmt: skip
    """Where windows lie on a channel `(H, W)`.

    Returns:
        How many there are down and across; and, for each, the index (row * W + column) of the position that each place
        `(row, column)` of the kernel lies on. Places on the padding have none.
    """
    (height, width), kernel, stride, padding, dilation = shape[-2:], *map(pair, (kernel, stride, padding, dilation))
    down, across = (
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, p, d, k, s in zip((height, width), padding, dilation, kernel, stride, strict=True)
    )
    windows = []
    for top in range(down):
        for left in range(across):
            window = {}
            for u in range(kernel[0]):
                for v in range(kernel[1]):
                    row = top * stride[0] - padding[0] + u * dilation[0]
                    column = left * stride[1] - padding[1] + v * dilation[1]
                    if 0 <= row < height and 0 <= column < width:
                        window[u, v] = row * width + column
            windows.append(window)
    return (down, across), windows


def convolution(module: nn.Conv2d, shape: tuple[int, ...]) -> tuple[Linear, tuple[int, ...]]:
    """The matrix of a convolution: unit (o, window) reads the channels of o's group where its window lies."""
    padding = module.padding
    assert not isinstance(padding, str), "give padding as numbers"
    size, windows = places(shape, module.kernel_size, module.stride, padding, module.dilation)
    weight, area = module.weight.double().tolist(), shape[1] * shape[2]
    per_group_in = module.in_channels // module.groups
    per_group_out = module.out_channels // module.groups
    rows = []
    for o in range(module.out_channels):
        first = o // per_group_out * per_group_in
        for window in windows:
            rows.append(
                {
                    (first + c) * area + at: weight[o][c][u][v]
                    for c in range(per_group_in)
                    for (u, v), at in window.items()
                }
            )
    bias = [b for b in numbers(module.bias, module.out_channels) for _ in windows]
    return Linear(rows, bias), (module.out_channels, *size)


def batch_norm(module: nn.BatchNorm1d | nn.BatchNorm2d, shape: tuple[int, ...]) -> Linear:
    """s_c x + t_c, with the running statistics."""
    count = shape[0]
    mean, variance = numbers(module.running_mean, count), numbers(module.running_var, count)
    weight, bias = numbers(module.weight, count, 1.0), numbers(module.bias, count)
    scale = [w / math.sqrt(v + module.eps) for w, v in zip(weight, variance, strict=True)]
    shift = [b - m * s for b, m, s in zip(bias, mean, scale, strict=True)]
    channel = [c for c in range(count) for _ in range(math.prod(shape[1:]))]
    return Linear([{i: scale[c]} for i, c in enumerate(channel)], [shift[c] for c in channel])


def folded(layer: Linear, norm: Linear) -> Linear:
    """One linear layer for a layer and the batch norm that follows it: W_ij s_j, b_j s_j + t_j."""
    scale = [row[j] for j, row in enumerate(norm.rows)]
    rows = [{i: w * s for i, w in row.items()} for row, s in zip(layer.rows, scale, strict=True)]
    return Linear(rows, [b * s + t for b, s, t in zip(layer.bias, scale, norm.bias, strict=True)])


def max_pooling(module: nn.MaxPool2d, shape: tuple[int, ...]) -> tuple[MaxPooling, tuple[int, ...]]:
    size, windows = places(shape, module.kernel_size, module.stride, module.padding, module.dilation)
    area = shape[1] * shape[2]
    on_channels = [{uv: c * area + at for uv, at in window.items()} for c in range(shape[0]) for window in windows]
    return MaxPooling(pair(module.kernel_size), on_channels), (shape[0], *size)


def average_pooling(module: nn.AvgPool2d, shape: tuple[int, ...]) -> tuple[AveragePooling, tuple[int, ...]]:
    size, windows = places(shape, module.kernel_size, module.stride, module.padding)
    area, count = shape[1] * shape[2], math.prod(pair(module.kernel_size))
    rows = []
    for c in range(shape[0]):
        for window in windows:
            divisor = count if module.count_include_pad else len(window)
            rows.append({c * area + at: 1 / divisor for at in window.values()})
    return AveragePooling(rows, [0.0] * len(rows)), (shape[0], *size)


def run(network: list[Layer], x: Values) -> list[Values]:
    """All values of the forward pass: the input, then the output of each layer."""
    values = [x]
    for layer in network:
        if isinstance(layer, Add):
            values.append([a + b for a, b in zip(values[-1], values[layer.source], strict=True)])
        else:
            values.append(list(values[-1]) if isinstance(layer, Unchanged) else layer.forward(values[-1]))
    return values


# --- the rules of LRP -------------------------------------------------------------------------------------------------


@dataclass
class Split:
    """The relevance of one unit, split: the share of each input, of the bias, and of the stabiliser."""

    shares: Row
    bias: float
    stabiliser: float


def stabilised(d: float, epsilon: float) -> float:
    """st(d) = d + eps sgn(d) with sgn(0) = +1."""
    return d + epsilon if d >= 0 else d - epsilon


def split(parts: Row, bias: float, epsilon: float) -> Split:
    """p_ij / st(d_j), c_j / st(d_j), and (st(d_j) - d_j) / st(d_j)."""
    d = sum(parts.values()) + bias
    whole = stabilised(d, epsilon)
    if whole == 0:  # LRP-0 at a unit that is 0, and has no relevance to split
        return Split(dict.fromkeys(parts, 0.0), 0.0, 0.0)
    return Split({i: part / whole for i, part in parts.items()}, bias / whole, (whole - d) / whole)


def products(x: Values, row: Row) -> Row:
    """z_ij = x_i W_ij."""
    return {i: x[i] * w for i, w in row.items()}


@dataclass(frozen=True)
class Epsilon:
    """LRP-epsilon; LRP-0 with epsilon 0."""

    epsilon: float = EPSILON

    def unit(self, x: Values, row: Row, b: float) -> Split:
        return split(products(x, row), b, self.epsilon)


@dataclass(frozen=True)
class ZPlus:
    bias: bool = True
    epsilon: float = EPSILON

    def unit(self, x: Values, row: Row, b: float) -> Split:
        positive = {i: max(z, 0.0) for i, z in products(x, row).items()}
        return split(positive, max(b, 0.0) if self.bias else 0.0, self.epsilon)


@dataclass(frozen=True)
class AlphaBeta:
    alpha: float
    beta: float
    epsilon: float = EPSILON

    def unit(self, x: Values, row: Row, b: float) -> Split:
        z = products(x, row)
        up = split({i: max(part, 0.0) for i, part in z.items()}, max(b, 0.0), self.epsilon)
        down = split({i: min(part, 0.0) for i, part in z.items()}, min(b, 0.0), self.epsilon)
        alpha, beta = self.alpha, self.beta
        return Split(
            {i: alpha * up.shares[i] - beta * down.shares[i] for i in z},
            alpha * up.bias - beta * down.bias,
            alpha * up.stabiliser - beta * down.stabiliser,
        )


@dataclass(frozen=True)
class Gamma:
    """The generalised rule; `plain` is that of Montavon et al."""

    gamma: float
    plain: bool = False
    epsilon: float = EPSILON

    def unit(self, x: Values, row: Row, b: float) -> Split:
        gamma, z = self.gamma, products(x, row)
        if self.plain:
            parts = {i: x[i] * (w + gamma * max(w, 0.0)) for i, w in row.items()}
            return split(parts, b + gamma * max(b, 0.0), self.epsilon)
        favour = max if sum(z.values()) + b > 0 else min
        parts = {i: part + gamma * favour(part, 0.0) for i, part in z.items()}
        return split(parts, b + gamma * favour(b, 0.0), self.epsilon)


@dataclass(frozen=True)
class WSquare:
    epsilon: float = EPSILON

    def unit(self, x: Values, row: Row, b: float) -> Split:
        return split({i: w * w for i, w in row.items()}, 0.0, self.epsilon)


@dataclass(frozen=True)
class Flat:
    epsilon: float = EPSILON

    def unit(self, x: Values, row: Row, b: float) -> Split:
        return split(dict.fromkeys(row, 1.0), 0.0, self.epsilon)


@dataclass(frozen=True)
class ZBox:
    """With the same bounds for every input."""

    low: float
    high: float
    epsilon: float = EPSILON

    def unit(self, x: Values, row: Row, b: float) -> Split:
        parts = {i: x[i] * w - self.low * max(w, 0.0) - self.high * min(w, 0.0) for i, w in row.items()}
        return split(parts, 0.0, self.epsilon)


@dataclass(frozen=True)
class Pass:
    """R unchanged: input j takes the relevance of output j."""


Rule = Epsilon | ZPlus | AlphaBeta | Gamma | WSquare | Flat | ZBox | Pass


# --- the way down -----------------------------------------------------------------------------------------------------


@dataclass
class Line:
    """The relevance that entered one linear layer, and its parts on the way out."""

    entered: float = 0.0
    left: float = 0.0
    to_bias: float = 0.0
    to_stabiliser: float = 0.0


@dataclass
class Relevance:
    """R at the input; and a line for each linear layer, from the output down."""

    at_input: Values
    ledger: list[Line] = field(default_factory=list)


def relevance(network: list[Layer], x: Values, target: int, rules: Sequence[Rule]) -> Relevance:
    """LRP of output number `target`.

    Args:
        network: the layers.
        x: the input.
        target: which entry of the output is explained.
        rules: one for each linear layer, from the input up.
    """
    values, left = run(network, x), list(rules)
    arriving = [[0.0] * len(value) for value in values]
    arriving[-1][target] = values[-1][target]
    ledger = []
    for number in reversed(range(len(network))):
        layer, below, above = network[number], values[number], values[number + 1]
        r, handed = arriving[number + 1], arriving[number]
        if isinstance(layer, AveragePooling):
            for j, row in enumerate(layer.rows):
                for i, share in split(products(below, row), 0.0, 0.0).shares.items():
                    handed[i] += share * r[j]
        elif isinstance(layer, Linear):
            ledger.append(pass_linear(layer, left.pop(), below, r, handed))
        elif isinstance(layer, MaxPooling):
            for j, window in enumerate(layer.windows):
                handed[layer.winner(below, window)] += r[j]
        elif isinstance(layer, Add):
            for i, (a, b) in enumerate(zip(below, values[layer.source], strict=True)):
                shares = split({0: a, 1: b}, 0.0, 0.0).shares
                handed[i] += shares[0] * r[i]
                arriving[layer.source][i] += shares[1] * r[i]
        elif isinstance(layer, Activation):
            for i, y in enumerate(above):
                handed[i] += r[i] if y != 0 else 0.0
        else:
            for i, unchanged in enumerate(r):
                handed[i] += unchanged
    assert not left, "there are more rules than linear layers"
    return Relevance(arriving[0], ledger)


def pass_linear(layer: Linear, rule: Rule, x: Values, r: Values, handed: Values) -> Line:
    """Add to `handed` the relevance R_i = sum_j share_ij R_j of the inputs of a linear layer, and keep the books."""
    line = Line(entered=sum(r))
    for j, (row, b) in enumerate(zip(layer.rows, layer.bias, strict=True)):
        unit = Split({j: 1.0}, 0.0, 0.0) if isinstance(rule, Pass) else rule.unit(x, row, b)
        for i, share in unit.shares.items():
            handed[i] += share * r[j]
            line.left += share * r[j]
        line.to_bias += unit.bias * r[j]
        line.to_stabiliser += unit.stabiliser * r[j]
    return line


def signal(
    network: list[Layer],
    x: Values,
    target: int,
    backward_relu: bool,
    forward_mask: bool,
    unpooling: str = "switches",
) -> Values:
    """The signal m of output number `target` at the input, under one method of the deconvnet family."""
    values = run(network, x)
    arriving = [[0.0] * len(value) for value in values]
    arriving[-1][target] = 1.0
    for number in reversed(range(len(network))):
        layer, below = network[number], values[number]
        m, handed = arriving[number + 1], arriving[number]
        if isinstance(layer, Linear):
            for i, part in enumerate(layer.transpose(m, len(below))):
                handed[i] += part
        elif isinstance(layer, MaxPooling):
            for j, window in enumerate(layer.windows):
                won = layer.winner(below, window)
                for place, i in window.items():
                    share = float(i == won) if unpooling == "switches" else layer.share(place, unpooling)
                    handed[i] += share * m[j]
        elif isinstance(layer, Activation):
            for i, value in enumerate(below):
                handed[i] += pass_activation(m[i], layer.slope(value), backward_relu, forward_mask)
        else:
            for i, copied in enumerate(m):
                handed[i] += copied
                if isinstance(layer, Add):
                    arriving[layer.source][i] += copied
    return arriving[0]


def pass_activation(m: float, slope: float, backward_relu: bool, forward_mask: bool) -> float:
    """Below y = f(x), for the signal m above it and f'(x)."""
    if backward_relu:
        m, slope = max(m, 0.0), max(slope, 0.0)
    return m * slope if forward_mask else m


# The presets in terms of the oracle: the rules of convolutions, of other linear layers, of the first layer.
E, E0 = Epsilon(), Epsilon(0.0)
PRESET_RULES: dict[str, tuple[Rule, Rule, Rule | None]] = {
    "lrp_0": (E0, E0, None),
    "epsilon": (E, E, None),
    "epsilon_plus": (ZPlus(), E, None),
    "epsilon_plus_flat": (ZPlus(), E, Flat()),
    "epsilon_gamma_box": (Gamma(0.25), E, ZBox(-2.2, 2.7)),
    "epsilon_alpha2_beta1": (AlphaBeta(2, 1), E, None),
    "epsilon_alpha2_beta1_flat": (AlphaBeta(2, 1), E, Flat()),
    "excitation_backprop": (ZPlus(bias=False), ZPlus(bias=False), None),
    "attn_lrp": (E0, E0, None),
    "cp_lrp": (E0, E0, None),
}
