"""Classes with the names, fields and tensors of torch.nn, which the tests do not need; what each computes, in NumPy."""

import numpy as np
from scipy.special import erf, expit


class Tensor:
    """Refuses `numpy()` as torch does: of a graph, on a device, of bfloat16."""

    def __init__(self, array, dtype="torch.float32", graph=True, device="cuda"):
        self.array, self.dtype, self.graph, self.device = np.asarray(array), dtype, graph, device

    def detach(self):
        return Tensor(self.array, self.dtype, False, self.device)

    def cpu(self):
        return Tensor(self.array, self.dtype, self.graph, "cpu")

    def float(self):
        return Tensor(self.array, "torch.float32", self.graph, self.device)

    def numpy(self):
        if self.graph or self.device != "cpu" or self.dtype == "torch.bfloat16":
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        return self.array

    def __array__(self, *_, **__):
        return self.numpy()


class Module:
    def state_dict(self):
        return {}

    def forward(self, x):
        raise AssertionError("a module's forward is not called")


def kind(name, of=None):
    """A class of that name in torch.nn, with fields; `of(self, x)` is what it computes."""

    def forward(self, x):
        raise AssertionError("a module's forward is not called")

    def init(self, **fields):
        self.__dict__.update(fields)

    return type(name, (Module,), {"__module__": "torch.nn.modules.x", "__init__": init, "forward": forward, "of": of})


def tensor(array):
    return Tensor(np.asarray(array, np.float32))


def numbers(field):
    return field.array.astype(np.float64)


def affine(m, x):
    return x @ numbers(m.weight).T + (0 if m.bias is None else numbers(m.bias))


def normalised(m, x):
    x = (x - numbers(m.running_mean)) / np.sqrt(numbers(m.running_var) + m.eps)
    return x * numbers(m.weight) + numbers(m.bias) if m.weight is not None else x


def gelu(m, x):
    if m.approximate == "tanh":
        return x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2
    return x * (1 + erf(x / np.sqrt(2))) / 2


def elu(x, alpha=1.0):
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


Linear = kind("Linear", affine)
BatchNorm1d = kind("BatchNorm1d", normalised)
ReLU = kind("ReLU", lambda m, x: np.maximum(x, 0))
LeakyReLU = kind("LeakyReLU", lambda m, x: np.where(x > 0, x, m.negative_slope * x))
PReLU = kind("PReLU", lambda m, x: np.where(x > 0, x, numbers(m.weight) * x))
GELU = kind("GELU", gelu)
SiLU = kind("SiLU", lambda m, x: x * expit(x))
ELU = kind("ELU", lambda m, x: elu(x, m.alpha))
CELU = kind("CELU", lambda m, x: m.alpha * elu(x / m.alpha))
Tanh = kind("Tanh", lambda m, x: np.tanh(x))
Sigmoid = kind("Sigmoid", lambda m, x: expit(x))
Softplus = kind("Softplus", lambda m, x: np.logaddexp(0, m.beta * x) / m.beta)
Identity, Dropout, Flatten = (kind(name, lambda m, x: x) for name in ("Identity", "Dropout", "Flatten"))
Softmax, LayerNorm, Conv2d = (kind(name) for name in ("Softmax", "LayerNorm", "Conv2d"))


class Sequential(kind("Sequential")):
    """In torch's own module, as the others."""

    def __init__(self, *modules):
        self.modules = modules

    def __iter__(self):
        return iter(self.modules)

    def of(self, x):
        for module in self.modules:
            x = module.of(x)
        return x


Sequential.__module__ = "torch.nn.modules.container"


def linear(n_out, n_in, seed=0, bias=True):
    rng = np.random.default_rng(seed)
    weight = tensor(rng.normal(size=(n_out, n_in)))
    return Linear(weight=weight, bias=tensor(rng.normal(size=n_out)) if bias else None)


def batch_norm(n, seed=1, affine=True):
    rng = np.random.default_rng(seed)
    mean, variance = tensor(rng.normal(size=n)), tensor(rng.uniform(0.5, 2, size=n))
    weight, bias = (tensor(rng.normal(size=n)) if affine else None for _ in range(2))
    return BatchNorm1d(running_mean=mean, running_var=variance, weight=weight, bias=bias, eps=1e-5)
