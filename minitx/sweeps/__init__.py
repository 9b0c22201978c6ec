"""Many runs: cells named by hash, the executor that runs them, their table, and the Hydra plugin."""
