"""The fast engine: everything that a loss needs of a source, a layer and an encoder.

In the order in which a loss is computed; `certify/` has the same rooms, with proofs.

- `problem.py`: what a loss is of: source, layer, atoms and encoder that fit together
- `plan.py`: the boxes of all laws: what may be kept from step to step
- `budget.py`: bytes, and how many to compute at once
- `ridge_axis.py`: the one variable that a ridge layer is not linear in
- `reading.py`: a layer as encoders read it
- `statistic.py`: the statistics that an encoder reads, in coordinates that make them easy
- `spectrum.py`: their characteristic function on the grid of their box
- `quadrature_rule.py`: their law as nodes and weights; functions of them as series
- `conditional.py`: how an expectation answers to the source: all states and inputs at once
- `layer_moments.py`: mean and covariance of a layer's output
- `statistic_function.py`: one function of statistics: its regression on them, and the rest
- `codes.py`: the codes of all features
- `pairs.py`: second moments of all pairs: what a loss spends its time on
- `units.py`: all units of a dense layer
- `expected.py`: what the loss needs of all that, as numbers;
- `learnt.py`, `carried.py`: of features that are learnt, and handed on
- `kink_tail.py`: what frequencies miss of a function with kinks
- `second_order.py`: what two features do together to every unit
"""
