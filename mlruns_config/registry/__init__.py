"""The model registry: transitions, rollouts, reconciliation and their command line."""
