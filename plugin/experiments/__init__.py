"""The paper's questions, as functions and command lines."""
