"""Work beside the pages, files to download, time and memory, and texts of strangers; knows no network."""
