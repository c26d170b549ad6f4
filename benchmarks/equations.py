"""How large is the program of a loss? Equations of its jaxpr, by file, and instructions and fusions after XLA.

Counted through every inner program (pjit, scan, cond, custom rules), each body once. `python benchmarks/equations.py`.
"""

import argparse
import collections
import time

import equinox as eqx
import jax

from harness import av, save, table  # isort: skip (it sets the path)
import cases  # isort: skip

parser = argparse.ArgumentParser()
parser.add_argument("--files", type=int, default=12, help="of the most equations, how many are printed")


def bodies(equation):
    """The inner programs of an equation."""
    for value in equation.params.values():
        for one in value if isinstance(value, tuple | list) else [value]:
            inner = getattr(one, "jaxpr", one)
            if hasattr(inner, "eqns"):
                yield inner


def where(equation) -> str:
    """The innermost file of the package that an equation comes from."""
    try:
        frames = equation.source_info.traceback.frames
    except AttributeError:
        return "?"
    return next((f.file_name.split("analytic_vae/")[-1] for f in frames if "analytic_vae/" in f.file_name), "?")


def count(jaxpr, seen: set, files: collections.Counter) -> int:
    """Equations of a program and of those inside of it that were not seen yet."""
    total = 0
    for equation in jaxpr.eqns:
        total += 1
        inner = list(bodies(equation))
        if not inner:
            files[where(equation)] += 1
        for one in inner:
            if id(one) not in seen:
                seen.add(id(one))
                total += count(one, seen, files)
    return total


def measured(name, function, *args) -> tuple[dict, collections.Counter]:
    """A row for one function."""
    files = collections.Counter()
    equations = count(jax.make_jaxpr(function)(*args).jaxpr, set(), files)
    begun = time.process_time()
    lowered = jax.jit(function).lower(*args)
    traced = time.process_time() - begun
    text = lowered.compile().as_text()
    return {
        "program": name,
        "equations": equations,
        "lines": lowered.as_text().count("\n"),
        "fusions": text.count(" fusion("),
        "trace_cpu_s": traced,
        "compile_cpu_s": time.process_time() - begun - traced,
    }, files


if __name__ == "__main__":
    options, rows, resolution = parser.parse_args(), [], av.Resolution(24)
    arrays, static = eqx.partition(cases.problem(0, "softmax", "relu"), eqx.is_array)

    def loss(arrays):
        """Of a ridge layer and a softmax encoder."""
        return av.elbo(*eqx.combine(arrays, static), resolution).loss

    for name, function in (("loss", loss), ("loss and gradient", jax.value_and_grad(loss))):
        row, files = measured(name, function, arrays)
        rows.append(row)
        print(table(rows[-1:]))
        print(table([{"file": file, "equations": n} for file, n in files.most_common(options.files)]), flush=True)
    save("equations", rows)
