"""One file per page; `plugin.explorer.app.PAGES` lists them."""
