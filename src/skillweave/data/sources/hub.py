"""Hugging Face datasets: `hf:NAME`, `hf:NAME:CONFIG`, `hf:FOLDER`, each with `@SPLIT` (`@train[:90%]`) if only a part is meant."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import datasets

from skillweave.config.base import ConfigError
from skillweave.data.sources.base import Table
from skillweave.data.sources.split import NAMES
