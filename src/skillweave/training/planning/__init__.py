"""Planning: what a step of a recipe needs, before it runs: memory, time, and communication."""
