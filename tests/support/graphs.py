"""A graph network with a constant adjacency, sparse or dense, and the ways to multiply by it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Product = Callable[[Tensor, Tensor], Tensor]

PRODUCTS: dict[str, Product] = {
    "sparse.mm": torch.sparse.mm,
    "mm": torch.mm,
    "@": lambda a, x: a @ x,
    "spmm": torch.spmm,
    "addmm": lambda a, x: torch.addmm(x.new_zeros(len(a), x.shape[1]), a, x),
    "sparse.addmm": lambda a, x: torch.sparse.addmm(x.new_zeros(len(a), x.shape[1]), a, x),
    "mv": lambda a, x: torch.stack([torch.mv(a, column) for column in x.unbind(1)], 1),
    "from the right": lambda a, x: (x.t() @ a.t()).t(),
    "linear": lambda a, x: F.linear(x.t(), a).t(),
}
FORMS: dict[str, Callable[[Tensor], Tensor]] = {"coo": Tensor.to_sparse_coo, "csr": Tensor.to_sparse_csr}


class GraphConvolution(nn.Module):
    """Two layers that mix the nodes `(N, 5)` of a graph by its adjacency `(N, N)`; the product comes first."""

    def __init__(self, product: Product, adjacency: Tensor) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.last, self.product = nn.Linear(5, 8), nn.Linear(8, 3), product
        self.register_buffer("adjacency", adjacency)
        self.double().eval()

    def forward(self, nodes: Tensor) -> Tensor:
        hidden = F.relu(self.first(self.product(self.adjacency, nodes)))
        logits: Tensor = self.last(self.product(self.adjacency, hidden))
        return logits
