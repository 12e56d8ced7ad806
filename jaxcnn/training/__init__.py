"""Training a classifier: its state, one pure step, data parallelism, checkpoints, metrics and pictures.

The modules are used by name, in the order in which a training loop needs them: `state`, `step`, `parallel`,
`checkpoint`, `metrics`, `plots`. `run` keeps a run's folder, `console` says what happens. None of them
knows a model or a data set.
"""
