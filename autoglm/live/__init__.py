"""The live view: what `autoglm top` shows, and what its keys do."""
