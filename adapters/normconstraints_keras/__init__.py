"""Constraints on the weights of Keras models: which axes the weights of its layers have."""
