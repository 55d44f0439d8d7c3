"""Work beside the pages, files to download, and what work takes; knows no network."""
