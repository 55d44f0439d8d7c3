"""From a question about a network and a picture to a map, its numbers, its files and its program; no Streamlit."""
