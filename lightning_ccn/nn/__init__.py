"""The parts that the models are made of."""
