"""A folder per page: `page.py` draws it, and the files beside it are its own. `plugin.explorer.app` lists them."""
