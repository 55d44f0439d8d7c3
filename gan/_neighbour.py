"""Raises an ImportError with a remedy where `import plugin` finds an unrelated package.

A `plugin.py` or a folder `plugin` beside a script comes before installed packages in Python's search.
"""

import plugin

try:
    from plugin.extras import require_own
except ImportError as error:
    raise ImportError(
        f"`import plugin` finds {plugin.__file__} instead of the package of captum-simplicity: rename that file or "
        "folder, or start Python elsewhere",
        name="plugin",
    ) from error

require_own("plugin")
