"""What happens inside a model: interference of tasks, use of experts, parameters."""
