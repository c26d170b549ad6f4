"""The fast engine: everything that a loss needs of a source, a layer and an encoder.

In the order in which a loss is computed; `certify/` has the same rooms, with proofs.

    plan.py              the boxes of all laws: what may be kept from step to step
    budget.py            bytes, and how many to compute at once
    ridge_axis.py        the one variable that a ridge layer is not linear in
    statistic.py         the statistics that an encoder reads, in coordinates that make them easy
    spectrum.py          their characteristic function on the grid of their box
    quadrature_rule.py   their law as nodes and weights; functions of them as series
    conditional.py       how an expectation answers to the source: all states and inputs by one reverse pass
    layer_moments.py     mean and covariance of a layer's output
    latent.py            covariances of one function of the statistics with the output
    latents.py           all features' codes
    pairs.py             second moments of all pairs: what a loss spends its time on
    units.py             all units of a dense layer
    kink_tail.py         what frequencies miss of a function with kinks
    second_order.py      what two features do together to every unit
"""
