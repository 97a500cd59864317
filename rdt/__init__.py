"""The science: model, data, training, policies, simulation. Knows nothing of clusters."""
