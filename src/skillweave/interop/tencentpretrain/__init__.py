"""Configurations and weights of TencentPretrain."""
