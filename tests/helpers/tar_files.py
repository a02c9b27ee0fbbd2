"""Small WebDataset shards."""

import io
import json
import tarfile


def write(file, members):
    with tarfile.open(file, "w") as tar:
        for name, content in members.items():
            data = content if isinstance(content, bytes) else content.encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def sample(name, i, size=10):
    return {
        f"{name}.jpg": bytes([i]) * size,
        f"{name}.txt": f"caption {i}\n",
        f"{name}.json": json.dumps({"group": f"g{i % 2}", "n": i}),
    }
