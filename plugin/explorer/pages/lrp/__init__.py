"""Layer-wise relevance propagation and its ledger."""
