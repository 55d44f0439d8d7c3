"""The Folder page: many pictures through the network that is open."""
