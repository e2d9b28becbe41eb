"""The clock of the loop: delivers tasks, draws samples, syncs Label Studio, collects annotations."""
