"""Write down how the state dicts of torchvision's networks look: `python scripts/architectures.py`."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from torchvision import models

from plugin.files import write_text
from plugin.models.state_dicts import digest_of, shapes_of

CLASSES = 1000
TARGET = Path(__file__).parents[1] / "plugin" / "models" / "architectures.json"


def main() -> None:
    """One row for each classification network."""
    rows = []
    for name in models.list_models(module=models):
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        shapes = shapes_of(models.get_model(name, weights=None, **options).state_dict())
        # The last ones first: googlenet has auxiliary heads before.
        head = tuple(reversed([key for key, shape in shapes.items() if shape[:1] == (CLASSES,)]))
        rows.append({"name": name, "head": head, "digest": digest_of(shapes, head)})
    write_text(TARGET, "[\n" + ",\n".join(f" {json.dumps(row)}" for row in rows) + "\n]\n")


if __name__ == "__main__":
    main()
