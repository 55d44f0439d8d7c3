"""Work beside the pages, files to download, time and memory, and untrusted texts; knows no network."""
