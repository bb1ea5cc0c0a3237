"""The names of the activations, for those as well who must not import Numba."""

# The place in this list is the code by which kernels know an activation.
ACTIVATIONS = (
    "linear", "tanh", "sigmoid", "relu", "hard_sigmoid", "elu", "selu", "softplus", "gelu",
)  # fmt: skip
LINEAR, TANH, SIGMOID, RELU, HARD_SIGMOID, ELU, SELU, SOFTPLUS, GELU = range(len(ACTIVATIONS))
