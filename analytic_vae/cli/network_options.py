"""The options of the command that say what a file of a network does not."""

import argparse
from pathlib import Path
from typing import Any

from ..io.network_files import load_network
from ..model.network import Network

# The option, its argument of `load_network`, and what `argparse` is to know of it.
_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "--activation": ("activation", {"metavar": "NAME", "help": "after all but the last map, relu if not given; "
                     "or a list, one after each map: relu,identity,relu"}),
    "--order": ("order", {"nargs": "+", "metavar": "NAME", "help": "weights as applied, if numbers do not say: "
                "fc1,fc2,head"}),
    "--transposed": ("transposed", {"nargs": "?", "const": "yes", "choices": ("yes", "no"),
                     "help": "whether weights are stored [in, out], if shapes and names do not say"}),
    "--residual": ("residual", {"action": "store_true", "default": None,
                   "help": "two weights of one number are a block x + W2 psi(W1 x + b1) + b2"}),
    "--batch-norm": ("batch_norm", {"choices": ("before", "after"),
                     "help": "the activation, if the file does not say"}),
    "--epsilon": ("epsilon", {"type": float, "help": "of batch normalisations, 1e-5 if not given (keras: 1e-3)"}),
    "--block": ("block", {"metavar": "NAME", "help": "beginning of the names to read: h.0.mlp"}),
}  # fmt: skip


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """`--network` and what may be said of it."""
    parser.add_argument("--network", type=Path, help="an MLP: .npz or .safetensors of weights and biases, or .onnx")
    group = parser.add_argument_group("what the file of --network may not say")
    for option, (_, about) in _OPTIONS.items():
        group.add_argument(option, **about)


def network_from(options: argparse.Namespace) -> Network | None:
    """The network in the file of `--network`, if there is one."""
    given = {argument: getattr(options, argument) for argument, _ in _OPTIONS.values()}
    given = {argument: value for argument, value in given.items() if value is not None}
    if options.network is None:
        if given:
            name = f"--{next(iter(given)).replace('_', '-')}"
            raise ValueError(f"--network: expected a file, of which {name} says something; got none.")
        return None
    if "order" in given:
        given["order"] = [name for part in given["order"] for name in part.split(",") if name]
    if "," in given.get("activation", ""):
        given["activation"] = given["activation"].split(",")
    if "transposed" in given:
        given["transposed"] = given["transposed"] == "yes"
    return load_network(options.network, layers=options.layers, **given)
