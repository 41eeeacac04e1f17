"""The inputs of an evaluation as data: system, model, traffic, plan, prices and measurements."""
