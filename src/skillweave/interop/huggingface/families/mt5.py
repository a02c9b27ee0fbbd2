"""mT5 (arXiv 2010.11934): T5 1.1 for many languages, whose output layer reads vectors that are not
scaled."""

from __future__ import annotations

from dataclasses import replace

from skillweave.interop.huggingface.families.t5 import ENCODER, T5, heads

MT5 = replace(T5, model_type="mt5", heads=heads("MT5", replace(ENCODER, model_type="mt5")))
MT5.register()
