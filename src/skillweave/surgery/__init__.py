"""Making models from models: carve, upcycle, weave, average, extend a vocabulary, export."""
